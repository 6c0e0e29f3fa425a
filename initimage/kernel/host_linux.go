package kernel

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Host is the network namespace of the thread that opened it. If the process has
// threads in other namespaces, use it on that thread only (runtime.LockOSThread).
type Host struct {
	backend  backend
	netlink  *netlink.Handle
	lock     *lock
	families []ruleset.Family
	printed  map[ruleset.Family][]string // tables that the last Save printed
}

// Open checks a namespace and takes its lock. Another Open waits until this Host is
// closed or its process is gone. Open deletes the link that the probes of a killed
// run left behind, and changes nothing else. Its errors are ErrPreflight.
func Open(ctx context.Context, opts interception.Options) (*Host, error) {
	h, err := open(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPreflight, err)
	}
	return h, nil
}

func open(ctx context.Context, opts interception.Options) (*Host, error) {
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
	lock, err := acquireLock(ctx, lockPatience)
	if err != nil {
		return nil, err
	}
	host := &Host{lock: lock, families: families, printed: map[ruleset.Family][]string{}}
	if host.backend, err = chooseBackend(ctx, opts.Backend); err == nil && host.backend.name == interception.BackendLegacy {
		err = requireNetRaw("write rules")
	}
	if err == nil {
		host.netlink, err = netlink.NewHandle(unix.NETLINK_ROUTE)
	}
	if err == nil {
		err = host.closeSink()
	}
	if err != nil {
		host.Close()
		return nil, err
	}
	return host, nil
}

// Close releases the lock.
func (h *Host) Close() {
	if h.netlink != nil {
		h.netlink.Close()
	}
	h.lock.release()
}

// Families returns the families whose connections have to be intercepted here.
func (h *Host) Families() []ruleset.Family { return h.families }

// String returns the backend and its version, for messages.
func (h *Host) String() string { return "iptables-" + string(h.backend.name) + " " + h.backend.version }

// Save implements Namespace. It runs no command for a family without tables, such
// as a new pod's.
func (h *Host) Save(ctx context.Context, family ruleset.Family) (string, error) {
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
	text, err := h.Save(ctx, family)
	if err != nil {
		return err
	}
	rs, err := ruleset.Parse(family, text)
	if err != nil {
		return fmt.Errorf("parsing the saved rules: %w", err)
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
	text, err := os.ReadFile("/proc/thread-self/net/if_inet6")
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
	text, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return false, fmt.Errorf("reading the capabilities of this process: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		var effective uint64
		if n, _ := fmt.Sscanf(line, "CapEff: %x", &effective); n == 1 {
			return effective&(1<<number) != 0, nil
		}
	}
	return false, nil
}
