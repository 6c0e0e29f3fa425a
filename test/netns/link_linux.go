package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// End is one end of a link: the interface that a namespace gets.
type End struct {
	NS    *NS
	Name  string       // of the interface
	Addrs []netip.Addr // its addresses, without subnets
}

// Gateways that stand for the other end of every link. Nobody has these addresses:
// both ends have a permanent neighbour entry for them, so that nothing waits for
// ARP or neighbour discovery.
var (
	gateway4 = netip.MustParseAddr("169.254.1.1")
	gateway6 = netip.MustParseAddr("fe80::1")
)

// Connect links two namespaces by a pair of interfaces, whose addresses can be
// used when it returns. It adds no routes: see NS.Route.
func Connect(end, b End) error {
	veth := &netlink.Veth{
		LinkAttrs: netlink.NewLinkAttrs(), PeerName: b.Name, PeerNamespace: netlink.NsFd(b.NS.file.Fd()),
	}
	veth.Name = end.Name
	if err := end.NS.links.LinkAdd(veth); err != nil {
		return fmt.Errorf("linking %s of %s with %s of %s: %w", end.Name, end.NS.name, b.Name, b.NS.name, err)
	}
	for _, end := range []End{end, b} {
		if err := end.configure(); err != nil {
			return fmt.Errorf("configuring %s of %s: %w", end.Name, end.NS.name, err)
		}
	}
	return errors.Join(end.meet(b), b.meet(end), end.awaitAddresses(), b.awaitAddresses())
}

func (e End) configure() error {
	link, err := e.NS.links.LinkByName(e.Name)
	if err != nil {
		return err
	}
	for _, addr := range e.Addrs {
		err := e.NS.links.AddrAdd(link, &netlink.Addr{IPNet: hostNet(addr), Flags: unix.IFA_F_NODAD})
		if err != nil {
			return fmt.Errorf("adding address %s: %w", addr, err)
		}
	}
	return e.NS.links.LinkSetUp(link)
}

const (
	// addressPatience is for a kernel that never gets there; a busy one is faster.
	addressPatience = time.Minute
	addressPoll     = time.Millisecond
)

// awaitAddresses waits until packets for the addresses stay in the namespace. The
// kernel adds the local route to a new IPv6 address from a work queue, even without
// duplicate address detection. Until then such packets leave by the interface and
// are lost.
func (e End) awaitAddresses() error {
	for _, addr := range e.Addrs {
		for deadline := time.Now().Add(addressPatience); ; time.Sleep(addressPoll) {
			err := e.NS.keepsLocal(addr)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("address %s of %s of %s cannot be used after %s: %w", addr, e.Name, e.NS.name, addressPatience, err)
			}
		}
	}
	return nil
}

// keepsLocal returns an error unless packets for the address stay in the namespace.
func (ns *NS) keepsLocal(addr netip.Addr) error {
	routes, err := ns.links.RouteGet(addr.AsSlice())
	if err != nil {
		return err
	}
	if len(routes) != 1 || routes[0].Type != unix.RTN_LOCAL {
		return fmt.Errorf("packets for it go by %v", routes)
	}
	return nil
}

// meet adds the link-layer address of the other end as a neighbour.
func (e End) meet(other End) error {
	there, err := other.NS.links.LinkByName(other.Name)
	if err != nil {
		return fmt.Errorf("finding %s of %s: %w", other.Name, other.NS.name, err)
	}
	here, err := e.NS.links.LinkByName(e.Name)
	if err != nil {
		return fmt.Errorf("finding %s of %s: %w", e.Name, e.NS.name, err)
	}
	for _, gateway := range []netip.Addr{gateway4, gateway6} {
		err := e.NS.links.NeighSet(&netlink.Neigh{
			LinkIndex: here.Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: gateway.AsSlice(), HardwareAddr: there.Attrs().HardwareAddr,
		})
		if err != nil {
			return fmt.Errorf("adding neighbour %s to %s of %s: %w", gateway, e.Name, e.NS.name, err)
		}
	}
	return nil
}

// mainTable is the routing table that Route and AnyIP write to.
const mainTable = unix.RT_TABLE_MAIN

// Route routes packets to a destination out of an interface that Connect made.
func (ns *NS) Route(destination netip.Prefix, device string) error {
	return ns.route(destination, device, mainTable)
}

func (ns *NS) route(destination netip.Prefix, device string, table int) error {
	link, err := ns.links.LinkByName(device)
	if err != nil {
		return fmt.Errorf("routing %s in %s: finding %s: %w", destination, ns.name, device, err)
	}
	gateway := gateway4
	if destination.Addr().Is6() {
		gateway = gateway6
	}
	err = ns.links.RouteAdd(&netlink.Route{
		Dst: prefixNet(destination), LinkIndex: link.Attrs().Index, Table: table,
		Gw: gateway.AsSlice(), Flags: int(netlink.FLAG_ONLINK),
	})
	if err != nil {
		return fmt.Errorf("routing %s to %s in %s: %w", destination, device, ns.name, err)
	}
	return nil
}

// AnyIP makes every address that no other route of the namespace covers an address
// of the namespace itself, so that one namespace can play all hosts.
func (ns *NS) AnyIP() error {
	// These hosts may send each other packets through a third. Such packets come
	// back in from addresses of this host, which it would drop.
	if err := ns.Sysctl("net/ipv4/conf/all/accept_local", "1"); err != nil {
		return err
	}
	lo, err := ns.links.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo of %s: %w", ns.name, err)
	}
	for _, all := range everywhere {
		err := ns.links.RouteAdd(&netlink.Route{
			Dst: prefixNet(all), LinkIndex: lo.Attrs().Index, Table: mainTable,
			Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST,
		})
		if err != nil {
			return fmt.Errorf("making all of %s local to %s: %w", all, ns.name, err)
		}
	}
	return nil
}

// Forward makes the namespace a router.
func (ns *NS) Forward() error {
	return errors.Join(ns.Sysctl("net/ipv4/ip_forward", "1"), ns.Sysctl("net/ipv6/conf/all/forwarding", "1"))
}

// RouteMarked routes packets with a mark out of an interface, whatever their
// destination. The interface's index is the number of the routing table.
func (ns *NS) RouteMarked(mark uint32, device string) error {
	link, err := ns.links.LinkByName(device)
	if err != nil {
		return fmt.Errorf("routing mark %#x in %s: finding %s: %w", mark, ns.name, device, err)
	}
	table := link.Attrs().Index
	for _, all := range everywhere {
		if err := ns.route(all, device, table); err != nil {
			return err
		}
		rule := netlink.NewRule()
		rule.Family, rule.Mark, rule.Table, rule.Priority = family(all.Addr()), mark, table, markedPriority
		if err := ns.links.RuleAdd(rule); err != nil {
			return fmt.Errorf("routing mark %#x to %s in %s: %w", mark, device, ns.name, err)
		}
	}
	return nil
}

// markedPriority puts RouteMarked's rules after table local and before main.
const markedPriority = 100

var everywhere = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

func family(addr netip.Addr) int {
	if addr.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func hostNet(addr netip.Addr) *net.IPNet {
	return prefixNet(netip.PrefixFrom(addr, addr.BitLen()))
}

func prefixNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
