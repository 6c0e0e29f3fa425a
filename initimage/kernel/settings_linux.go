package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// RequireSettings checks the sysctls and addresses of a namespace that the system of
// a spec depends on, and names those that it does not work with. Its errors are
// ErrPreflight.
func (h *Host) RequireSettings(spec interception.Spec) error {
	err := h.requireAddress(spec.System)
	switch {
	case spec.NoConntrack:
		return errors.Join(err, h.requireWritable())
	case spec.System == interception.SystemTProxy:
		return errors.Join(err, h.requireSYNs())
	}
	return err
}

// requireSYNs refuses a namespace that opens each connection with a cookie. Other
// sysctls look as if they decided whether a system works; test/rules has connections
// that show that they do not.
func (h *Host) requireSYNs() error {
	const name = "net.ipv4.tcp_syncookies"
	value, err := h.networkSysctl(name)
	if err != nil {
		return fmt.Errorf("%w: reading sysctl %s: %w", ErrPreflight, name, err)
	}
	if value == "2" {
		return fmt.Errorf("%w: sysctl %s is 2; accepted with system tproxy: 0, 1 (the answer to a cookie carries no SYN, "+
			"by which TPROXY would find the proxy's listener)", ErrPreflight, name)
	}
	return nil
}

// requireWritable tries whether the sysctls can be written that SystemTProxy needs
// without conntrack. Most containers have them read-only.
func (h *Host) requireWritable() error {
	for _, family := range h.families {
		for _, name := range family.MarkSettings() {
			fd, err := unix.Open(h.sysctlPath(name), unix.O_WRONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("%w: opening sysctl %s for writing: %w; accepted with --no-conntrack: a process that can set it, "+
					"as the node's agent can", ErrPreflight, name, err)
			}
			_ = unix.Close(fd)
		}
	}
	return nil
}

// readSettings reads which of the sysctls are set that our rules need. They are ours
// where our policy rules route two marks: only SystemTProxy without conntrack has
// both. Elsewhere somebody else has set them.
func (h *Host) readSettings(family ruleset.Family, routing *ruleset.Routing) error {
	marks := 0
	for _, p := range routing.Rules {
		if p.Mark != 0 {
			marks++
		}
	}
	if marks < 2 {
		return nil
	}
	for _, name := range family.MarkSettings() {
		value, err := h.networkSysctl(name)
		if err != nil {
			return fmt.Errorf("reading sysctl %s: %w", name, err)
		}
		if value == "1" {
			routing.Settings = append(routing.Settings, name)
		}
	}
	return nil
}

// setSetting returns a function that sets a sysctl of the network to a value.
func (h *Host) setSetting(value string) func(name string) error {
	return func(name string) error {
		path := h.sysctlPath(name)
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &fs.PathError{Op: "open", Path: path, Err: err}
		}
		defer unix.Close(fd)
		if _, err := unix.Write(fd, []byte(value)); err != nil {
			return &fs.PathError{Op: "write", Path: path, Err: err}
		}
		return nil
	}
}

// sysctlFolder is where the kernel shows the sysctls of the calling thread's network
// namespace.
const sysctlFolder = "/proc/sys/net"

func (h *Host) sysctlPath(name string) string {
	return filepath.Join(h.sysctls, strings.ReplaceAll(strings.TrimPrefix(name, "net."), ".", "/"))
}

// networkSysctl reads a sysctl of the network. It returns "" if the kernel does not
// have it.
func (h *Host) networkSysctl(name string) (string, error) { return readSysctl(h.sysctlPath(name)) }

// sysctl reads a sysctl of this thread's network namespace by its path below
// /proc/sys. It returns "" if the kernel does not have it.
func sysctl(path string) (string, error) { return readSysctl(filepath.Join("/proc/sys", path)) }

func readSysctl(path string) (string, error) {
	text, err := readProc(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(text)), err
}

// requireAddress returns an error if the pod has its IPv4 address on lo alone and
// the system uses REDIRECT. REDIRECT sends a packet to an address of the interface
// that it came in by, and drops it if there is none. For IPv6 there is a link-local
// address.
func (h *Host) requireAddress(system interception.System) error {
	if system == interception.SystemTProxy {
		return nil
	}
	uplink := h.egressInterface(probeNets[ruleset.IPv4].beyond)
	if uplink == 0 {
		return nil
	}
	link, err := h.netlink.LinkByIndex(uplink)
	if err != nil {
		return fmt.Errorf("%w: finding interface %d: %w", ErrPreflight, uplink, err)
	}
	addrs, err := h.netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("%w: listing the addresses of %s: %w", ErrPreflight, link.Attrs().Name, err)
	}
	if len(addrs) == 0 {
		return fmt.Errorf("%w: interface %s has no IPv4 address, so that REDIRECT drops what comes in by it; "+
			"accepted here: system tproxy, or an address on it", ErrPreflight, link.Attrs().Name)
	}
	return nil
}
