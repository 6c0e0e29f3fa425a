package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// setting is a sysctl of the namespace that a system rests on.
type setting struct {
	name     string
	system   interception.System
	accepted []string
	why      string
}

// settings are those that decide whether a system works. Others that look as if
// they did, do not: test/rules has connections with each.
var settings = []setting{{
	name: "net.ipv4.tcp_syncookies", system: interception.SystemTProxy, accepted: []string{"0", "1"},
	why: "the answer to a cookie carries no SYN, by which TPROXY would find the proxy's listener",
}}

// RequireSettings reads what else of a namespace a system rests on, sysctls and
// addresses, and names what it does not work with. Its errors are ErrPreflight.
func (h *Host) RequireSettings(system interception.System) error {
	return errors.Join(requireSysctls(system), h.requireAddress(system))
}

func requireSysctls(system interception.System) error {
	var errs []error
	for _, s := range settings {
		if s.system != system {
			continue
		}
		value, err := sysctl(strings.ReplaceAll(s.name, ".", "/"))
		if err != nil {
			return fmt.Errorf("%w: reading sysctl %s: %w", ErrPreflight, s.name, err)
		}
		if value != "" && !slices.Contains(s.accepted, value) {
			errs = append(errs, fmt.Errorf("%w: sysctl %s is %s; accepted with system %s: %s (%s)",
				ErrPreflight, s.name, value, system, strings.Join(s.accepted, ", "), s.why))
		}
	}
	return errors.Join(errs...)
}

// sysctl reads one of this thread's network namespace by its path below
// /proc/sys; it is "" where the kernel has no such thing.
func sysctl(path string) (string, error) {
	text, err := os.ReadFile(filepath.Join("/proc/sys", path))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(text)), err
}

// requireAddress refuses a pod that has its IPv4 address on lo alone where nat
// takes what comes in: REDIRECT gives a packet an address of the interface that
// it came in by, and drops it where there is none. IPv6 has a link-local one.
func (h *Host) requireAddress(system interception.System) error {
	uplink := h.leavesBy(probeNets[ruleset.IPv4].beyond)
	if system == interception.SystemTProxy || uplink == 0 {
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
