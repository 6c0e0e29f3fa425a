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

// openSink makes the link, after taking away what a run that was killed left.
func (h *Host) openSink(families []ruleset.Family) error {
	if err := h.closeSink(); err != nil {
		return err
	}
	err := h.netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: probeLink}, PeerName: probePeer})
	if err != nil {
		return fmt.Errorf("making the link %s: %w", probeLink, err)
	}
	for _, name := range []string{probePeer, probeLink} {
		link, err := h.netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("finding the link %s: %w", name, err)
		}
		if name == probeLink {
			err = h.addProbeAddresses(link, families)
		}
		if err := errors.Join(err, h.netlink.LinkSetUp(link)); err != nil {
			return fmt.Errorf("setting up the link %s: %w", name, err)
		}
	}
	return nil
}

func (h *Host) addProbeAddresses(link netlink.Link, families []ruleset.Family) error {
	for _, prefix := range probeAddresses {
		for _, family := range families {
			if !family.Of(prefix.Addr()) {
				continue
			}
			addr := &netlink.Addr{IPNet: ipNet(prefix), Flags: unix.IFA_F_NODAD}
			if err := h.netlink.AddrAdd(link, addr); err != nil {
				return fmt.Errorf("address %s: %w", prefix, err)
			}
		}
	}
	return nil
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
