package ruleset

import "net/netip"

// Family is the address family of a rule set.
type Family int

// The families, by the number that users write.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Families holds both, in the order in which they are shown.
var Families = []Family{IPv4, IPv6}

// String returns "IPv4" or "IPv6".
func (f Family) String() string {
	if f == IPv6 {
		return "IPv6"
	}
	return "IPv4"
}

// Of reports whether addr is of the family.
func (f Family) Of(addr netip.Addr) bool { return addr.Is4() == (f == IPv4) }

// loopback6 is the prefix of the IPv6 address by which a process reaches its own
// host.
var loopback6 = hostPrefix(netip.IPv6Loopback())

// loopback returns the address by which a process reaches its own host.
func (f Family) loopback() netip.Addr {
	if f == IPv6 {
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// passthroughSource returns the source address of the proxy's connections to the
// app in SystemRedirect. ::6 has to be added to lo first.
func (f Family) passthroughSource() netip.Prefix {
	if f == IPv6 {
		return netip.MustParsePrefix("::6/128")
	}
	return netip.MustParsePrefix("127.0.0.6/32")
}

// thisHost returns addresses of the family that mean whichever host they are used
// on, one of each kind; see ThisHost.
func (f Family) thisHost() []netip.Addr {
	if f == IPv6 {
		return []netip.Addr{f.loopback(), f.unspecified(), netip.AddrFrom16(IPv4.loopback().As16())}
	}
	return []netip.Addr{f.loopback(), f.loopback().Next(), f.unspecified()}
}

// unspecified returns the address that stands for any address.
func (f Family) unspecified() netip.Addr {
	if f == IPv6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// hostProbe returns the source of a node's own probes where ambient's node agent
// rewrites them. They are not intercepted.
func (f Family) hostProbe() netip.Prefix {
	if f == IPv6 {
		return netip.MustParsePrefix("fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128")
	}
	return netip.MustParsePrefix("169.254.7.127/32")
}

// portUnreachable returns the kind of answer that tells a client of udp to try
// another way, as REJECT names it.
func (f Family) portUnreachable() string {
	if f == IPv6 {
		return "icmp6-port-unreachable"
	}
	return "icmp-port-unreachable"
}

// hostPrefix returns the prefix of one address alone.
func hostPrefix(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }
