package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Host is the network namespace of the thread that opened it. If the process has
// threads in other namespaces, use it on that thread only (runtime.LockOSThread).
type Host struct {
	choice
	backend  backend
	netlink  *netlink.Handle
	lock     *lock
	families []ruleset.Family
	sysctls  string                                                // folder of the sysctls of the network
	printed  map[ruleset.Family][]string                           // tables that the last save printed
	lacks    func(ruleset.Family, ruleset.Extension) (bool, error) // instead of lacksExtension, in tests
	try      func(*batch) error                                    // instead of batch.try, in tests
}

// Open checks a namespace and takes its lock. Another Open waits until this Host is
// closed or its process is gone. Open deletes the link that the probes of a killed
// run left behind, and changes nothing else. Its errors are ErrPreflight.
func Open(ctx context.Context, opts interception.Options, more ...Option) (*Host, error) {
	lock, err := acquireLock(ctx, lockPatience)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPreflight, err)
	}
	h, err := OpenToRead(ctx, opts, more...)
	if err != nil {
		lock.release()
		return nil, err
	}
	h.lock = lock
	if err := h.closeSink(); err != nil {
		h.Close()
		return nil, fmt.Errorf("%w: %w", ErrPreflight, err)
	}
	return h, nil
}

// OpenToRead is Open without the lock. Every process of the namespace can hold the
// lock for ever, and must not keep others from looking. This Host is not for changes,
// and what it reads in the midst of a run may be half done.
func OpenToRead(ctx context.Context, opts interception.Options, more ...Option) (*Host, error) {
	h, err := open(ctx, opts, more)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPreflight, err)
	}
	return h, nil
}

func open(ctx context.Context, opts interception.Options, more []Option) (*Host, error) {
	if err := requireNetAdmin(); err != nil {
		return nil, err
	}
	families, err := FamiliesOf(opts.IPv6)
	if err != nil {
		return nil, err
	}
	if slices.Contains(families, ruleset.IPv6) && opts.Action() != interception.ActionRemove {
		if err := requireIPv6OnLoopback(); err != nil {
			return nil, err
		}
	}
	host := &Host{families: families, sysctls: sysctlFolder, printed: map[ruleset.Family][]string{}}
	for _, option := range more {
		option(host)
	}
	if host.choice, err = chooseBackend(ctx, opts.Backend); err == nil {
		host.backend = host.first
		err = host.backend.requireCapability()
	}
	if err == nil {
		host.netlink, err = netlink.NewHandle(unix.NETLINK_ROUTE)
	}
	if err != nil {
		return nil, err
	}
	return host, nil
}

// Option is a setting of a Host that no flag of shunt-init has.
type Option func(*Host)

// SysctlFolder has the Host look for the sysctls of the network elsewhere than in
// /proc/sys/net, which a container cannot write. The kernel shows there those of the
// calling thread's network namespace, also where the folder is mounted elsewhere.
func SysctlFolder(path string) Option { return func(h *Host) { h.sysctls = path } }

// Wanted returns the rules of a spec for the families of the namespace.
func (h *Host) Wanted(spec interception.Spec) []ruleset.RuleSet {
	var want []ruleset.RuleSet
	for _, family := range h.families {
		want = append(want, ruleset.Build(spec, family))
	}
	return want
}

// Close releases the lock, if there is one.
func (h *Host) Close() {
	if h.netlink != nil {
		h.netlink.Close()
	}
	if h.lock != nil {
		h.lock.release()
	}
}

// Families returns the families whose connections have to be intercepted here.
func (h *Host) Families() []ruleset.Family { return h.families }

// String implements Namespace. It names the backend, and why it was chosen.
func (h *Host) String() string {
	if h.backend.why != "" {
		return fmt.Sprintf("%s (%s)", h.backend, h.backend.why)
	}
	return h.backend.String()
}

// Native implements Namespace.
func (h *Host) Native() bool { return h.backend.native() }

// Formers implements Namespace.
func (h *Host) Formers() []Namespace {
	var all []Namespace
	for _, b := range h.formers {
		former := &Host{backend: b, netlink: h.netlink, families: h.families, sysctls: h.sysctls, printed: map[ruleset.Family][]string{}}
		all = append(all, former)
	}
	return all
}

// Rules implements Namespace.
func (h *Host) Rules(ctx context.Context, family ruleset.Family) (ruleset.RuleSet, error) {
	if h.Native() {
		return readTable(family)
	}
	text, err := h.save(ctx, family)
	if err != nil {
		return ruleset.RuleSet{}, err
	}
	rs, err := ruleset.Parse(family, text)
	if err != nil {
		return ruleset.RuleSet{}, fmt.Errorf("parsing the saved rules: %w", err)
	}
	return rs, nil
}

// Replace implements Namespace.
func (h *Host) Replace(want []ruleset.RuleSet) error {
	var tables []nft.Table
	for _, wanted := range want {
		if _, err := h.ForgetProof(wanted.Family); err != nil {
			return err
		}
		table, err := nft.Compile(wanted)
		if err != nil {
			return err
		}
		tables = append(tables, table)
	}
	own, err := ownTables()
	if err != nil {
		return err
	}
	var there []ruleset.Family
	for _, t := range tables {
		if _, is := own[t.Family]; is {
			there = append(there, t.Family)
		}
	}
	transaction, err := replaceTables(there, tables)
	if err != nil {
		return err
	}
	return explainLacking(transaction.commit())
}

// save returns what iptables-save prints of a family. It runs no command for a
// family without tables, such as a new pod's.
func (h *Host) save(ctx context.Context, family ruleset.Family) (string, error) {
	text, err := h.backend.save(ctx, family)
	if err != nil && h.backend.name == interception.BackendNFT {
		text, err = h.saveByChain(ctx, family, err)
	}
	if err == nil {
		err = checkCompatible(text)
	}
	h.printed[family] = nil
	for line := range strings.Lines(text) {
		if table, begins := strings.CutPrefix(strings.TrimSpace(line), "*"); begins {
			h.printed[family] = append(h.printed[family], table)
		}
	}
	return text, err
}

// Restore implements Namespace. A legacy table cannot be deleted, so none is marked
// as made by Shunt.
func (h *Host) Restore(ctx context.Context, tx Transaction) error {
	args := []string{"--noflush"}
	if h.backend.name == interception.BackendLegacy {
		args = append(args, "--wait") // for the lock that all legacy commands take
		tx = tx.without(ruleset.MadeChain)
	}
	_, err := runCommand(ctx, tx.String(), h.backend.command(tx.Family, "restore"), args...)
	return err
}

// DeleteTables implements Namespace. nft's tables can be deleted. Legacy tables
// stay, empty, until the namespace ends: the kernel has no call for it.
func (h *Host) DeleteTables(ctx context.Context, family ruleset.Family) error {
	if h.backend.name == interception.BackendLegacy {
		return nil
	}
	rs, err := h.Rules(ctx, family)
	if err != nil {
		return err
	}
	for _, t := range rs.Tables {
		if !madeAndEmpty(t) {
			continue
		}
		if err := deleteNFTTable(family, t.Name); err != nil {
			return fmt.Errorf("table %s: %w", t.Name, err)
		}
	}
	return nil
}

// FamiliesOf returns the families whose connections have to be intercepted in the
// network namespace of this thread: IPv4 and, as wanted, IPv6. A namespace without
// any IPv6 address, not even that of loopback, can neither open nor accept an IPv6
// connection.
func FamiliesOf(wanted interception.IPv6) ([]ruleset.Family, error) {
	if wanted == interception.IPv6Off {
		return []ruleset.Family{ruleset.IPv4}, nil
	}
	text, err := readProc("/proc/thread-self/net/if_inet6")
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("looking for IPv6 addresses: %w", err)
	}
	if len(text) > 0 {
		return ruleset.Families, nil
	}
	if wanted == interception.IPv6On {
		return nil, fmt.Errorf("--ipv6=on, but this namespace has no IPv6 address; accepted here: auto, off")
	}
	return []ruleset.Family{ruleset.IPv4}, nil
}

// readProc reads a file of /proc, without Go's poller: os.ReadFile would start it.
func readProc(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var text []byte
	for part := make([]byte, 4<<10); ; {
		n, err := unix.Read(fd, part)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		case n == 0:
			return text, nil
		default:
			text = append(text, part[:n]...)
		}
	}
}

// requireIPv6OnLoopback returns an error if IPv6 is disabled on lo alone. No system
// works then: the kernel takes no address and no packet there, and the proxy
// reaches the app, from ::6 or by a mark, over lo.
func requireIPv6OnLoopback() error {
	const name = "net.ipv6.conf.lo.disable_ipv6"
	value, err := sysctl(strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	if value == "" || value == "0" {
		return nil
	}
	return fmt.Errorf("the sysctl %s is 1, while other interfaces have IPv6 addresses; accepted: 0, or 1 for each interface, "+
		"or --ipv6=off, with which IPv6 connections bypass the proxy", name)
}

// Capabilities of linux/capability.h.
const (
	capNetAdmin = 12
	capNetRaw   = 13
)

// requireNetAdmin finds out before the first change what the kernel would otherwise
// say in the middle of it.
func requireNetAdmin() error {
	if has, err := capable(capNetAdmin); err != nil || has {
		return err
	}
	return fmt.Errorf("the capability NET_ADMIN is missing; " +
		"an init container needs it in securityContext.capabilities.add, and runAsUser 0 for it to take effect")
}

// requireCapability returns an error if a backend cannot be used for lack of a
// capability that others do without.
func (b backend) requireCapability() error {
	if b.name == interception.BackendLegacy {
		return requireNetRaw("write rules")
	}
	return nil
}

// requireNetRaw returns an error if iptables-legacy, which opens a raw socket,
// cannot do what it is wanted for.
func requireNetRaw(wanted string) error {
	if has, err := capable(capNetRaw); err != nil || has {
		return err
	}
	return fmt.Errorf("the capability NET_RAW is missing, and without it iptables-legacy cannot %s; "+
		"an init container needs it in securityContext.capabilities.add, which backend: legacy of the injector gives it", wanted)
}

// capable reports whether this thread has a capability.
func capable(number int) (bool, error) {
	var sets [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &sets[0]); err != nil {
		return false, fmt.Errorf("reading the capabilities of this process: %w", err)
	}
	return sets[number/32].Effective&(1<<(number%32)) != 0, nil
}
