package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Names of the two ends of the link that probes use. The pod's end is
// probeLink; the other one is in the same namespace, since there is no other to be had,
// and stands for everybody else.
const (
	probeLink = "shunt-probe"
	probePeer = "shunt-probe-end"
)

// visitTable is the routing table of what arrives at the other end: all of it
// is for the sockets of the probes.
const visitTable = 1330134

// probeNet is the addresses of one family that probes use, of the ranges kept
// for documentation (RFC 5737, RFC 3849). Nobody answers for the rest of them.
type probeNet struct {
	// own is the pod's address on probeLink. A probe to another one of its
	// network gets lost on the link, unless it is taken to a listener here.
	own netip.Prefix
	// visitor is where a probe comes in from.
	visitor netip.Addr
	// alias is what the visitor calls own. A kernel takes no packet from a
	// link whose other end is an address of its own, so the two are exchanged
	// on the wire.
	alias netip.Addr
	// beyond is behind whatever the pod's packets leave by.
	beyond netip.Addr
}

var probeNets = map[ruleset.Family]probeNet{
	ruleset.IPv4: {
		own: netip.MustParsePrefix("192.0.2.2/24"), visitor: netip.MustParseAddr("192.0.2.9"),
		alias: netip.MustParseAddr("192.0.2.77"), beyond: netip.MustParseAddr("198.51.100.1"),
	},
	ruleset.IPv6: {
		own: netip.MustParsePrefix("2001:db8::2/64"), visitor: netip.MustParseAddr("2001:db8::9"),
		alias: netip.MustParseAddr("2001:db8::77"), beyond: netip.MustParseAddr("2001:db8:1::1"),
	},
}

// sink is what probes are sent into.
type sink struct {
	families []ruleset.Family
	// guarded says that the kernel keeps probes from the wire, so that they may
	// leave by the pod's own interfaces, and come in by probeLink.
	guarded bool
	// beyond are addresses by the interface that packets to them leave by.
	beyond map[ruleset.Family]map[string]netip.Addr
}

// openSink makes the link with what belongs to it. The families are those that
// it has an address of: a namespace may forbid IPv6 on new interfaces, and a
// kernel may have no veth. What cannot be probed has been read back all the same.
func (h *Host) openSink(families []ruleset.Family) (sink, error) {
	err := h.netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: probeLink}, PeerName: probePeer})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return sink{}, nil
	}
	if err != nil {
		return sink{}, fmt.Errorf("making the link %s: %w", probeLink, err)
	}
	ends := [2]netlink.Link{}
	for i, name := range []string{probeLink, probePeer} {
		if ends[i], err = h.netlink.LinkByName(name); err != nil {
			return sink{}, fmt.Errorf("finding the link %s: %w", name, err)
		}
	}
	s := sink{beyond: map[ruleset.Family]map[string]netip.Addr{}}
	if s.families, err = h.addProbeAddresses(ends[0], families); err != nil {
		return sink{}, fmt.Errorf("setting up the link %s: %w", probeLink, err)
	}
	for _, end := range ends {
		if err := h.netlink.LinkSetUp(end); err != nil {
			return sink{}, fmt.Errorf("setting up the link %s: %w", end.Attrs().Name, err)
		}
	}
	if s.guarded, err = guardProbes(ends[0].Attrs().Index, ends[1].Attrs().Index); err != nil || !s.guarded {
		return s, err
	}
	for _, family := range s.families {
		if err := h.inviteVisitor(family, ends); err != nil {
			return sink{}, fmt.Errorf("having %s probes come in by %s: %w", family, probeLink, err)
		}
		if s.beyond[family], err = h.waysOut(family); err != nil {
			return sink{}, fmt.Errorf("looking for the ways out of %s: %w", family, err)
		}
	}
	return s, nil
}

func (h *Host) addProbeAddresses(link netlink.Link, families []ruleset.Family) (added []ruleset.Family, err error) {
	for _, family := range families {
		own := probeNets[family].own
		err := h.netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(own), Flags: unix.IFA_F_NODAD})
		if errors.Is(err, unix.EACCES) {
			continue // disable_ipv6 of new interfaces (ip-sysctl)
		}
		if err != nil {
			return nil, fmt.Errorf("address %s: %w", own, err)
		}
		added = append(added, family)
	}
	return added, nil
}

// inviteVisitor gives probes a way from the other end of the link to the pod's,
// and their answers one back.
func (h *Host) inviteVisitor(family ruleset.Family, ends [2]netlink.Link) error {
	own, peer, addrs := ends[0].Attrs(), ends[1].Attrs(), probeNets[family]
	for _, n := range []netlink.Neigh{
		{LinkIndex: peer.Index, IP: addrs.alias.AsSlice(), HardwareAddr: own.HardwareAddr},
		{LinkIndex: peer.Index, IP: addrs.own.Addr().AsSlice(), HardwareAddr: own.HardwareAddr}, // once they are exchanged
		{LinkIndex: own.Index, IP: addrs.visitor.AsSlice(), HardwareAddr: peer.HardwareAddr},
	} {
		n.State = netlink.NUD_PERMANENT
		if err := h.netlink.NeighSet(&n); err != nil {
			return fmt.Errorf("neighbour %s: %w", n.IP, err)
		}
	}
	for _, route := range []*netlink.Route{hostRoute(addrs.alias, peer.Index), visitRoute(family)} {
		if err := h.netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("route to %s: %w", route.Dst, err)
		}
	}
	for _, rule := range probeRules(family) {
		if err := h.netlink.RuleAdd(rule); err != nil {
			return fmt.Errorf("rule of table %d: %w", rule.Table, err)
		}
	}
	return nil
}

// hostRoute leads to one address by a link, without a neighbour to ask for.
func hostRoute(to netip.Addr, link int) *netlink.Route {
	return &netlink.Route{
		Dst: ipNet(netip.PrefixFrom(to, to.BitLen())), LinkIndex: link, Scope: unix.RT_SCOPE_LINK, Protocol: routingProtocol,
	}
}

func visitRoute(family ruleset.Family) *netlink.Route {
	return plainRoute(family, visitTable)
}

// probeRules have what arrives at the other end looked up in visitTable, and
// the link's addresses in main, where its routes are: a rule of others may send
// everything elsewhere.
func probeRules(family ruleset.Family) []*netlink.Rule {
	visit, link := netlink.NewRule(), netlink.NewRule()
	visit.IifName, visit.Table = probePeer, visitTable
	link.Dst, link.Table = ipNet(probeNets[family].own.Masked()), unix.RT_TABLE_MAIN
	for _, rule := range []*netlink.Rule{visit, link} {
		rule.Family, rule.Protocol, rule.Priority = netlinkFamily(family), routingProtocol, rulePriority
	}
	return []*netlink.Rule{visit, link}
}

// loopbackIndex is the index of lo in every namespace (LOOPBACK_IFINDEX).
const loopbackIndex = 1

// maxWaysOut bounds what is probed in a pod of very many interfaces.
const maxWaysOut = 16

// waysOut finds an address behind each interface that the pod's packets may
// leave by: the one that the pod's own routing sends it to, and one more for each other
// interface that has an address, by a route of its own.
func (h *Host) waysOut(family ruleset.Family) (map[string]netip.Addr, error) {
	addrs, err := h.netlink.AddrList(nil, netlinkFamily(family))
	if err != nil {
		return nil, fmt.Errorf("listing the addresses: %w", err)
	}
	ways, next := map[string]netip.Addr{}, probeNets[family].beyond
	index := h.leavesBy(next)
	if index != 0 {
		if err := h.addWay(ways, index, next); err != nil {
			return nil, err
		}
	}
	seen := []int{loopbackIndex, index}
	for _, a := range addrs {
		if slices.Contains(seen, a.LinkIndex) || a.IP.IsLinkLocalUnicast() || len(ways) == maxWaysOut {
			continue
		}
		seen, next = append(seen, a.LinkIndex), next.Next()
		// It may be down, or a rule of others may take the address elsewhere.
		if err := h.netlink.RouteAdd(hostRoute(next, a.LinkIndex)); err == nil && h.leavesBy(next) == a.LinkIndex {
			if err := h.addWay(ways, a.LinkIndex, next); err != nil {
				return nil, err
			}
		}
	}
	return ways, nil
}

// leavesBy asks the kernel which interface packets to an address leave by; it
// is 0 where they do not.
func (h *Host) leavesBy(to netip.Addr) int {
	routes, err := h.netlink.RouteGet(net.IP(to.AsSlice()))
	if err != nil || len(routes) != 1 || routes[0].Type != unix.RTN_UNICAST || routes[0].LinkIndex == loopbackIndex {
		return 0
	}
	return routes[0].LinkIndex
}

func (h *Host) addWay(ways map[string]netip.Addr, index int, to netip.Addr) error {
	link, err := h.netlink.LinkByIndex(index)
	if err != nil {
		return fmt.Errorf("finding interface %d: %w", index, err)
	}
	if name := link.Attrs().Name; name != probeLink && name != probePeer {
		ways[name] = to
	}
	return nil
}

// closeSink takes everything away that openSink made. The link comes first and
// goes last: without it there is nothing else.
func (h *Host) closeSink() error {
	link, err := h.netlink.LinkByName(probeLink)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("finding the link %s: %w", probeLink, err)
	}
	errs := []error{unguardProbes()}
	for _, family := range ruleset.Families {
		errs = append(errs, h.removeProbeRouting(family))
	}
	if err := errors.Join(append(errs, h.netlink.LinkDel(link))...); err != nil {
		return fmt.Errorf("taking the link %s away: %w", probeLink, err)
	}
	return nil
}

func (h *Host) removeProbeRouting(family ruleset.Family) error {
	gone := func(err error) bool {
		return err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EAFNOSUPPORT)
	}
	for _, rule := range probeRules(family) {
		if err := h.netlink.RuleDel(rule); !gone(err) {
			return fmt.Errorf("rule of table %d: %w", rule.Table, err)
		}
	}
	if err := h.netlink.RouteDel(visitRoute(family)); !gone(err) {
		return fmt.Errorf("route of table %d: %w", visitTable, err)
	}
	filter := &netlink.Route{Table: unix.RT_TABLE_MAIN, Protocol: routingProtocol}
	routes, err := h.netlink.RouteListFiltered(netlinkFamily(family), filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	if err != nil && !gone(err) {
		return fmt.Errorf("listing the routes: %w", err)
	}
	for _, route := range routes {
		if route.Type != unix.RTN_UNICAST {
			continue // a rule set's own, with -r 254
		}
		if err := h.netlink.RouteDel(&route); !gone(err) {
			return fmt.Errorf("route to %s: %w", route.Dst, err)
		}
	}
	return nil
}
