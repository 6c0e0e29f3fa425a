package ruleset

import "net/netip"

// Family is the address family of a rule set.
type Family int

// The families, by the number that users write.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Families are both, in the order in which they are shown.
var Families = []Family{IPv4, IPv6}

// String is "IPv4" or "IPv6".
func (f Family) String() string {
	if f == IPv6 {
		return "IPv6"
	}
	return "IPv4"
}

// Of reports whether addr is of the family.
func (f Family) Of(addr netip.Addr) bool { return addr.Is4() == (f == IPv4) }

// loopback is the address that a process reaches its own host by. As /32 or
// /128 it is what Istio's rules mean by loopback: all of 127.0.0.0/8 goes over
// lo, but only this one address is never the proxy's concern.
func (f Family) loopback() netip.Prefix {
	if f == IPv6 {
		return netip.MustParsePrefix("::1/128")
	}
	return netip.MustParsePrefix("127.0.0.1/32")
}

// passthroughSource is the source address of the proxy's connections to the
// application in SystemRedirect; ::6 has to be put on lo first.
func (f Family) passthroughSource() netip.Prefix {
	if f == IPv6 {
		return netip.MustParsePrefix("::6/128")
	}
	return netip.MustParsePrefix("127.0.0.6/32")
}

// unspecified is the address that stands for any address.
func (f Family) unspecified() netip.Addr {
	if f == IPv6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}
