package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// setting is a sysctl of the namespace that a system depends on.
type setting struct {
	name     string
	system   interception.System
	accepted []string
	why      string
}

// settings are the sysctls that decide whether a system works. Others look as if
// they did; test/rules has connections that show that they do not.
var settings = []setting{{
	name: "net.ipv4.tcp_syncookies", system: interception.SystemTProxy, accepted: []string{"0", "1"},
	why: "the answer to a cookie carries no SYN, by which TPROXY would find the proxy's listener",
}}

// RequireSettings checks the sysctls and addresses of a namespace that a system
// depends on, and names those that it does not work with. Its errors are
// ErrPreflight.
func (h *Host) RequireSettings(system interception.System) error {
	return errors.Join(requireSysctls(system), h.requireAddress(system))
}

func requireSysctls(system interception.System) error {
	var errs []error
	for _, setting := range settings {
		if setting.system != system {
			continue
		}
		value, err := sysctl(strings.ReplaceAll(setting.name, ".", "/"))
		if err != nil {
			return fmt.Errorf("%w: reading sysctl %s: %w", ErrPreflight, setting.name, err)
		}
		if value != "" && !slices.Contains(setting.accepted, value) {
			errs = append(errs, fmt.Errorf("%w: sysctl %s is %s; accepted with system %s: %s (%s)",
				ErrPreflight, setting.name, value, system, strings.Join(setting.accepted, ", "), setting.why))
		}
	}
	return errors.Join(errs...)
}

// sysctl reads a sysctl of this thread's network namespace by its path below
// /proc/sys. It returns "" if the kernel does not have it.
func sysctl(path string) (string, error) {
	text, err := readProc(filepath.Join("/proc/sys", path))
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
