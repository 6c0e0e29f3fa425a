package ruleset

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Distinguished returns packets that cover what the rules of a set can tell
// apart: every port, id, mark and interface that a rule names, and one that
// none names, to and from the host's own address, loopback, an address outside
// (RFC 5737, RFC 3849) and one of each range that a rule names. From outside
// they go to the host's own address, and to those that no packet from there
// may have.
func Distinguished(rs RuleSet, host Host) []Packet {
	v := valuesOf(rs, host)
	var packets []Packet
	for _, protocol := range []string{"tcp", "udp"} {
		for _, port := range v.ports {
			for _, in := range v.interfaces {
				for _, dst := range append([]netip.Addr{host.address(rs.Family)}, rs.Family.thisHost()...) {
					packets = append(packets, Packet{
						Direction: In, Family: rs.Family, Protocol: protocol, Src: v.outside, Dst: dst,
						DstPort: port, Interface: in, State: New,
					})
				}
			}
			for _, dst := range v.destinations {
				for _, id := range v.owners {
					for _, mark := range v.marks {
						packets = append(packets, Packet{
							Direction: Out, Family: rs.Family, Protocol: protocol, Dst: dst, DstPort: port,
							UID: id[0], GID: id[1], Mark: mark, State: New,
						})
					}
				}
			}
		}
	}
	for _, mark := range v.connMarks {
		packets = append(packets, Packet{
			Direction: Out, Family: rs.Family, Protocol: "tcp", Dst: v.outside, DstPort: unnamedPort,
			UID: defaultID, GID: defaultID, ConnMark: mark, State: Established,
		})
	}
	for _, p := range rs.Routing.Rules {
		if p.OutInterface == loopbackName {
			packets = append(packets, Packet{
				Direction: Out, Family: rs.Family, Protocol: "tcp", Src: p.Source.Addr(), Dst: host.address(rs.Family),
				DstPort: unnamedPort, UID: defaultID, GID: defaultID, Mark: p.Mark, Interface: loopbackName, State: New,
			})
		}
	}
	return packets
}

// values are what packets may differ in.
type values struct {
	outside      netip.Addr
	ports        []uint16
	destinations []netip.Addr
	owners       [][2]uint32 // uid and gid
	marks        []uint32
	connMarks    []uint32
	interfaces   []string
}

// unnamedPort is a port that rules do not name by default.
const unnamedPort = 80

func valuesOf(rs RuleSet, host Host) values {
	v := values{
		outside: outsideOf(rs.Family), ports: []uint16{unnamedPort}, owners: [][2]uint32{{defaultID, defaultID}},
		marks: []uint32{0}, connMarks: []uint32{0}, interfaces: []string{host.Uplink},
	}
	v.destinations = []netip.Addr{v.outside, host.address(rs.Family), rs.Family.loopback()}
	for _, t := range rs.Tables {
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				for _, m := range r.Matches {
					v.add(m)
				}
			}
		}
	}
	return v
}

// add takes in what one match looks at.
func (v *values) add(m Match) {
	switch m := m.(type) {
	case Ports:
		for _, r := range m.Ranges {
			v.ports = union(v.ports, r.First)
		}
	case Destination:
		v.destinations = union(v.destinations, m.Prefix.Addr())
	case Owner:
		id := [2]uint32{m.First, defaultID}
		if m.Group {
			id = [2]uint32{defaultID, m.First}
		}
		v.owners = union(v.owners, id)
	case Mark:
		if m.Connection {
			v.connMarks = union(v.connMarks, m.Value)
		} else {
			v.marks = union(v.marks, m.Value)
		}
	case InInterface:
		if m.Name != loopbackName {
			v.interfaces = union(v.interfaces, strings.TrimSuffix(m.Name, "+"))
		}
	}
}

func union[T comparable](set []T, value T) []T {
	if slices.Contains(set, value) {
		return set
	}
	return append(set, value)
}

// outsideOf is an address that is nobody's: it is kept for documentation.
func outsideOf(f Family) netip.Addr {
	if f == IPv6 {
		return netip.MustParseAddr("2001:db8::1")
	}
	return netip.MustParseAddr("192.0.2.1")
}

// String prints the packet as ParsePacket reads it.
func (p Packet) String() string {
	words := []string{string(p.Direction)}
	number := func(key string, n uint32, omit uint32) {
		if n != omit {
			words = append(words, key+"="+strconv.FormatUint(uint64(n), 10))
		}
	}
	if p.Direction == Out {
		number("uid", p.UID, defaultID)
		number("gid", p.GID, defaultID)
	}
	number("mark", p.Mark, 0)
	number("connmark", p.ConnMark, 0)
	if p.Src.IsValid() {
		words = append(words, "from="+p.Src.String())
	}
	if p.Interface != "" && p.Interface != defaultInterface {
		words = append(words, "if="+p.Interface)
	}
	if p.State != New && p.State != "" {
		words = append(words, "state="+strings.ToLower(string(p.State)))
	}
	return strings.Join(append(words, p.Protocol, netip.AddrPortFrom(p.Dst, p.DstPort).String()), " ")
}
