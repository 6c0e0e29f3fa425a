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

// Names of the two ends of the link that probes use. The pod's end is probeLink.
// The other end is in the same namespace, since there is no other, and plays every
// other host.
const (
	probeLink = "shunt-probe"
	probePeer = "shunt-probe-end"
)

// visitorTable is the routing table for what arrives at the other end: all of it
// goes to the sockets of the probes.
const visitorTable = 1330134

// probeNet holds the addresses of one family that probes use, from the ranges for
// documentation (RFC 5737, RFC 3849). Nobody answers at the others of these ranges.
type probeNet struct {
	// own is the pod's address on probeLink. A probe to another address of its
	// network is lost on the link, unless the rules take it to a listener here.
	own netip.Prefix
	// visitor is the source of an inbound probe.
	visitor netip.Addr
	// alias stands for own at the other end. Both ends belong to one kernel: it
	// would deliver a packet to own over lo, and drops one that arrives from own.
	// So the guard exchanges the two on the wire.
	alias netip.Addr
	// beyond is an address outside, behind the interface by which the pod's packets
	// leave.
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

// sink is where probes are sent.
type sink struct {
	families []ruleset.Family
	// guarded means that the kernel keeps probes from the wire, so that they may
	// leave by the pod's own interfaces, and come in by probeLink.
	guarded bool
	// beyond holds an address outside for each interface by which packets leave.
	beyond map[ruleset.Family]map[string]netip.Addr
}

// openSink makes the link and everything that belongs to it. Its families are those
// that the link got an address of: a namespace may forbid IPv6 on new interfaces,
// and a kernel may have no veth. A family that cannot be probed has still been read
// back.
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
	result := sink{beyond: map[ruleset.Family]map[string]netip.Addr{}}
	if result.families, err = h.addProbeAddresses(ends[0], families); err != nil {
		return sink{}, fmt.Errorf("setting up the link %s: %w", probeLink, err)
	}
	for _, end := range ends {
		if err := h.netlink.LinkSetUp(end); err != nil {
			return sink{}, fmt.Errorf("setting up the link %s: %w", end.Attrs().Name, err)
		}
	}
	if result.guarded, err = guardProbes(ends[0].Attrs().Index, ends[1].Attrs().Index); err != nil || !result.guarded {
		return result, err
	}
	for _, family := range result.families {
		if err := h.routeVisitor(family, ends); err != nil {
			return sink{}, fmt.Errorf("routing %s probes in by %s: %w", family, probeLink, err)
		}
		if result.beyond[family], err = h.egressAddresses(family); err != nil {
			return sink{}, fmt.Errorf("finding the interfaces that %s packets leave by: %w", family, err)
		}
	}
	return result, nil
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

// routeVisitor gives probes a route from the other end of the link to the pod's,
// and their answers a route back.
func (h *Host) routeVisitor(family ruleset.Family, ends [2]netlink.Link) error {
	own, peer, addrs := ends[0].Attrs(), ends[1].Attrs(), probeNets[family]
	for _, n := range []netlink.Neigh{
		{LinkIndex: peer.Index, IP: addrs.alias.AsSlice(), HardwareAddr: own.HardwareAddr},
		{LinkIndex: peer.Index, IP: addrs.own.Addr().AsSlice(), HardwareAddr: own.HardwareAddr}, // once the guard has exchanged them
		{LinkIndex: own.Index, IP: addrs.visitor.AsSlice(), HardwareAddr: peer.HardwareAddr},
	} {
		n.State = netlink.NUD_PERMANENT
		if err := h.netlink.NeighSet(&n); err != nil {
			return fmt.Errorf("neighbour %s: %w", n.IP, err)
		}
	}
	for _, route := range []*netlink.Route{hostRoute(addrs.alias, peer.Index), visitorRoute(family)} {
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

// hostRoute returns a route to one address on a link.
func hostRoute(to netip.Addr, link int) *netlink.Route {
	return &netlink.Route{
		Dst: ipNet(netip.PrefixFrom(to, to.BitLen())), LinkIndex: link, Scope: unix.RT_SCOPE_LINK, Protocol: routingProtocol,
	}
}

func visitorRoute(family ruleset.Family) *netlink.Route {
	return plainRoute(family, visitorTable)
}

// probeRules return the rules that look up what arrives at the other end in
// visitorTable, and the link's own addresses in main, where its routes are. A rule
// of others might send both elsewhere.
func probeRules(family ruleset.Family) []*netlink.Rule {
	visit, link := netlink.NewRule(), netlink.NewRule()
	visit.IifName, visit.Table = probePeer, visitorTable
	link.Dst, link.Table = ipNet(probeNets[family].own.Masked()), unix.RT_TABLE_MAIN
	for _, rule := range []*netlink.Rule{visit, link} {
		rule.Family, rule.Protocol, rule.Priority = netlinkFamily(family), routingProtocol, rulePriority
	}
	return []*netlink.Rule{visit, link}
}

// maxEgressInterfaces bounds what is probed in a pod with very many interfaces.
const maxEgressInterfaces = 16

// egressAddresses returns an address behind each interface by which the pod's
// packets may leave: the one that the pod's own routing chooses, and each other
// interface that has an address, by a route of its own.
func (h *Host) egressAddresses(family ruleset.Family) (map[string]netip.Addr, error) {
	addrs, err := h.netlink.AddrList(nil, netlinkFamily(family))
	if err != nil {
		return nil, fmt.Errorf("listing the addresses: %w", err)
	}
	found, next := map[string]netip.Addr{}, probeNets[family].beyond
	index := h.egressInterface(next)
	if index != 0 {
		if err := h.addEgressAddress(found, index, next); err != nil {
			return nil, err
		}
	}
	seen := []int{loopbackIndex, index}
	for _, a := range addrs {
		if slices.Contains(seen, a.LinkIndex) || a.IP.IsLinkLocalUnicast() || len(found) == maxEgressInterfaces {
			continue
		}
		seen, next = append(seen, a.LinkIndex), next.Next()
		// The interface may be down, or a rule of others may send the address
		// elsewhere.
		if err := h.netlink.RouteAdd(hostRoute(next, a.LinkIndex)); err == nil && h.egressInterface(next) == a.LinkIndex {
			if err := h.addEgressAddress(found, a.LinkIndex, next); err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}

// egressInterface asks the kernel by which interface packets to an address leave; 0
// if they do not leave.
func (h *Host) egressInterface(to netip.Addr) int {
	routes, err := h.netlink.RouteGet(net.IP(to.AsSlice()))
	if err != nil || len(routes) != 1 || routes[0].Type != unix.RTN_UNICAST || routes[0].LinkIndex == loopbackIndex {
		return 0
	}
	return routes[0].LinkIndex
}

func (h *Host) addEgressAddress(found map[string]netip.Addr, index int, to netip.Addr) error {
	link, err := h.netlink.LinkByIndex(index)
	if err != nil {
		return fmt.Errorf("finding interface %d: %w", index, err)
	}
	if name := link.Attrs().Name; name != probeLink && name != probePeer {
		found[name] = to
	}
	return nil
}

// closeSink removes everything that openSink made. The link is made first and
// removed last: without it there is nothing else.
func (h *Host) closeSink() error {
	link, err := h.netlink.LinkByName(probeLink)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("finding the link %s: %w", probeLink, err)
	}
	var errs []error
	if socket, err := openNetfilter(); !unknownToKernel(err) {
		defer socket.close() // after the link is gone
		errs = append(errs, err, unguardProbes(socket))
	}
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
	if err := h.netlink.RouteDel(visitorRoute(family)); !gone(err) {
		return fmt.Errorf("route of table %d: %w", visitorTable, err)
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
