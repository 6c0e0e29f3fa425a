package kernel

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Names of the two ends of the link that probes are sent into.
const (
	probeLink = "shunt-probe"
	probePeer = "shunt-probe-end"
)

// Addresses of the link, of the ranges kept for documentation (RFC 5737,
// RFC 3849). Nobody answers for the rest of them: a probe that is not taken to
// a listener here gets lost on the link, and nothing leaves the namespace.
var probeAddresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24"), netip.MustParsePrefix("2001:db8::2/64")}

// openSink makes the link and returns the families that it has an address of:
// a namespace may forbid IPv6 on new interfaces, and a kernel may have no veth.
// What cannot be probed has been read back all the same.
func (h *Host) openSink(families []ruleset.Family) ([]ruleset.Family, error) {
	err := h.netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: probeLink}, PeerName: probePeer})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("making the link %s: %w", probeLink, err)
	}
	var probed []ruleset.Family
	for _, name := range []string{probePeer, probeLink} {
		link, err := h.netlink.LinkByName(name)
		if err != nil {
			return nil, fmt.Errorf("finding the link %s: %w", name, err)
		}
		if name == probeLink {
			probed, err = h.addProbeAddresses(link, families)
		}
		if err := errors.Join(err, h.netlink.LinkSetUp(link)); err != nil {
			return nil, fmt.Errorf("setting up the link %s: %w", name, err)
		}
	}
	return probed, nil
}

func (h *Host) addProbeAddresses(link netlink.Link, families []ruleset.Family) (added []ruleset.Family, err error) {
	for _, family := range families {
		for _, prefix := range probeAddresses {
			if !family.Of(prefix.Addr()) {
				continue
			}
			err := h.netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(prefix), Flags: unix.IFA_F_NODAD})
			if errors.Is(err, unix.EACCES) {
				continue // disable_ipv6 of new interfaces (ip-sysctl)
			}
			if err != nil {
				return nil, fmt.Errorf("address %s: %w", prefix, err)
			}
			added = append(added, family)
		}
	}
	return added, nil
}

// closeSink takes the link away, with its addresses and routes.
func (h *Host) closeSink() error {
	link, err := h.netlink.LinkByName(probeLink)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = h.netlink.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("taking the link %s away: %w", probeLink, err)
	}
	return nil
}
