package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
)

// Addresses of the pod in a Lab, and of the host outside that cases name if it does
// not matter which.
var (
	PodIPv4     = netip.MustParseAddr("10.0.0.1")
	PodIPv6     = netip.MustParseAddr("fd00::1")
	OutsideIPv4 = netip.MustParseAddr("10.0.0.9")
	OutsideIPv6 = netip.MustParseAddr("fd00::9")
)

// Lab is the network of the rule cases: a pod, whose eth0 has PodIPv4 and PodIPv6,
// and one namespace that plays every other host in the world. Sockets outside can
// have any address, given IP_TRANSPARENT (DialOptions.Source and
// ListenOptions.Transparent set it).
type Lab struct {
	Pod, Outside *NS

	interfaces []string

	mu      sync.Mutex
	aliases map[netip.Addr]netip.Addr // by the address that each stands for
}

// aliasRanges are the ranges of Alias' addresses. They are routed to the pod, by
// eth0.
var aliasRanges = []netip.Prefix{netip.MustParsePrefix("198.18.0.0/24"), netip.MustParsePrefix("2001:2::/120")}

// Ports that the kernel gives to connections of each namespace. A transparent proxy
// in the pod connects from its client's address. If it drew the client's port, too,
// its connection to the app would be the client's own, and stall.
const (
	podPorts     = "32768 46999"
	outsidePorts = "47000 60999"
)

// NewLab makes a Lab whose pod has eth0 and the named interfaces. The n-th of
// those, counted from 1, has the addresses 10.n.0.1 and fd00:n::1.
func NewLab(interfaces ...string) (*Lab, error) {
	lab := &Lab{interfaces: interfaces, aliases: map[netip.Addr]netip.Addr{}}
	if err := lab.build(); err != nil {
		return nil, errors.Join(err, lab.Close())
	}
	return lab, nil
}

// Close ends both namespaces and everything in them.
func (l *Lab) Close() error {
	var errs []error
	for _, ns := range []*NS{l.Pod, l.Outside} {
		if ns != nil {
			errs = append(errs, ns.Close())
		}
	}
	return errors.Join(errs...)
}

func (l *Lab) build() (err error) {
	if l.Pod, err = New("pod"); err != nil {
		return err
	}
	if l.Outside, err = New("outside"); err != nil {
		return err
	}
	for ns, ports := range map[*NS]string{l.Pod: podPorts, l.Outside: outsidePorts} {
		if err := ns.Sysctl("net/ipv4/ip_local_port_range", ports); err != nil {
			return err
		}
	}
	if err := l.connect("eth0", PodIPv4, PodIPv6); err != nil {
		return err
	}
	for _, aliases := range aliasRanges {
		if err := l.Outside.Route(aliases, "eth0"); err != nil {
			return err
		}
	}
	for i, name := range l.interfaces {
		n := byte(i + 1)
		v6 := [16]byte{0xfd, 0, 0, n, 15: 1}
		if err := l.connect(name, netip.AddrFrom4([4]byte{10, n, 0, 1}), netip.AddrFrom16(v6)); err != nil {
			return err
		}
		if err := l.Outside.RouteMarked(l.Mark(name), name); err != nil {
			return err
		}
	}
	for _, all := range everywhere {
		if err := l.Pod.Route(all, "eth0"); err != nil {
			return err
		}
	}
	return l.Outside.AnyIP()
}

// connect links the pod with the outside by an interface that has the same name at
// both ends.
func (l *Lab) connect(name string, addrs ...netip.Addr) error {
	if err := Connect(End{l.Pod, name, addrs}, End{l.Outside, name, nil}); err != nil {
		return err
	}
	for _, addr := range addrs {
		if err := l.Outside.Route(netip.PrefixFrom(addr, addr.BitLen()), name); err != nil {
			return err
		}
	}
	return nil
}

// Mark returns the packet mark with which a socket outside reaches the pod by the
// named interface, 0 for eth0. It panics if the Lab has no such interface, which is
// an error of the caller.
func (l *Lab) Mark(name string) uint32 {
	if name == "eth0" {
		return 0
	}
	for i, other := range l.interfaces {
		if name == other {
			return uint32(i + 1)
		}
	}
	panic(fmt.Sprintf("netns: a lab without interface %q", name))
}

// Alias returns an address that sockets outside use instead of one that they could
// not use: on eth0 of the pod, a packet to or from the alias is one to or from
// addr. Each address has one alias.
func (l *Lab) Alias(addr netip.Addr) (netip.Addr, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if alias, there := l.aliases[addr]; there {
		return alias, nil
	}
	var alias netip.Addr
	for _, aliases := range aliasRanges {
		if aliases.Addr().Is4() == addr.Is4() {
			alias = aliases.Addr()
		}
	}
	for range len(l.aliases) + 1 {
		alias = alias.Next()
	}
	l.aliases[addr] = alias
	return alias, l.Outside.Impersonate(alias, addr)
}
