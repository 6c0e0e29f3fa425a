package kernel

import (
	"bytes"
	"math"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// operand is what a register holds: a property of the packet, or a value.
type operand struct {
	property property
	size     int    // of what was loaded, in bytes
	mask     []byte // bits of it that are compared; nil for all
	xor      []byte
	network  bool   // in network byte order, though the property is not
	value    []byte // of a constant
}

// property is what of a packet a rule compares.
type property int

const (
	propertyUnknown property = iota
	propertyConstant
	propertyFamily
	propertyEtherType
	propertyProtocol
	propertySource
	propertyDestination
	propertySourcePort
	propertyDestinationPort
	propertyTCPFlags
	propertyInInterface
	propertyOutInterface
	propertyInIndex
	propertyOutIndex
	propertyUID
	propertyGID
	propertyMark
	propertyConnMark
	propertyState
	propertySourceType
	propertyDestinationType
)

// bits returns the mask of an operand that is a mark, and the value that is xor-ed
// in.
func (o operand) bits() (mask, xor uint32) {
	if o.mask == nil {
		return math.MaxUint32, 0
	}
	return native(o.mask), native(o.xor)
}

// metaOperands are what the meta expression loads, by its keys.
var metaOperands = map[uint32]operand{
	unix.NFT_META_L4PROTO: {property: propertyProtocol, size: 1}, unix.NFT_META_NFPROTO: {property: propertyFamily, size: 1},
	unix.NFT_META_PROTOCOL: {property: propertyEtherType, size: 2},
	unix.NFT_META_IIF:      {property: propertyInIndex, size: 4}, unix.NFT_META_OIF: {property: propertyOutIndex, size: 4},
	unix.NFT_META_IIFNAME: {property: propertyInInterface, size: unix.IFNAMSIZ},
	unix.NFT_META_OIFNAME: {property: propertyOutInterface, size: unix.IFNAMSIZ},
	unix.NFT_META_MARK:    {property: propertyMark, size: 4},
	unix.NFT_META_SKUID:   {property: propertyUID, size: 4}, unix.NFT_META_SKGID: {property: propertyGID, size: 4},
}

// part is a place in a packet.
type part struct{ base, offset, size uint32 }

const (
	networkHeader   = unix.NFT_PAYLOAD_NETWORK_HEADER
	transportHeader = unix.NFT_PAYLOAD_TRANSPORT_HEADER
)

var transportParts = map[part]property{
	{transportHeader, 0, 2}: propertySourcePort, {transportHeader, 2, 2}: propertyDestinationPort,
	{transportHeader, 13, 1}: propertyTCPFlags,
}

// payload returns what lies at an offset of a packet. Of an address it may be the
// first bytes.
func (r *nativeReader) payload(base, offset, size uint32) operand {
	loaded := operand{size: int(size), property: transportParts[part{base, offset, size}]}
	if base != networkHeader {
		return loaded
	}
	source, destination, protocol, length := uint32(12), uint32(16), uint32(9), uint32(4)
	if r.family == ruleset.IPv6 {
		source, destination, protocol, length = 8, 24, 6, 16
	}
	switch {
	case offset == source && size <= length:
		loaded.property = propertySource
	case offset == destination && size <= length:
		loaded.property = propertyDestination
	case offset == protocol && size == 1:
		loaded.property = propertyProtocol
	}
	return loaded
}

// addComparison adds a comparison with a value.
func (n *nativeRule) addComparison(property operand, operation uint32, value []byte) {
	lowest, highest := make([]byte, len(value)), bytes.Repeat([]byte{0xff}, len(value))
	after := slices.Clone(value)
	for i := len(after) - 1; i >= 0; i-- {
		if after[i]++; after[i] != 0 {
			break
		}
	}
	equal := []setElement{{first: value}}
	switch operation {
	case unix.NFT_CMP_EQ:
		n.addMembership(property, equal, false)
	case unix.NFT_CMP_NEQ:
		n.addMembership(property, equal, true)
	case unix.NFT_CMP_LT:
		n.addMembership(property, []setElement{{first: lowest, last: before(value)}}, false)
	case unix.NFT_CMP_LTE:
		n.addMembership(property, []setElement{{first: lowest, last: value}}, false)
	case unix.NFT_CMP_GT:
		n.addMembership(property, []setElement{{first: after, last: highest}}, false)
	default:
		n.addMembership(property, []setElement{{first: value, last: highest}}, false)
	}
}

// addMembership adds the condition that a property has one of some values or,
// negated, none of them.
func (n *nativeRule) addMembership(property operand, elements []setElement, negated bool) {
	var alternatives [][]ruleset.Match
	var all []ruleset.Match
	for _, element := range elements {
		matches, holds := n.reader.matchesFor(property, element, negated)
		if matches == nil { // every packet of the family has it, or none has
			if holds != negated {
				if !negated {
					return
				}
				continue
			}
			if negated {
				n.neverMatches = true
				return
			}
			continue
		}
		for _, m := range matches {
			alternatives = append(alternatives, []ruleset.Match{m})
		}
		all = append(all, matches...)
	}
	if negated {
		n.addAlternatives(all)
		return
	}
	if ports, merged := mergePorts(alternatives); merged {
		alternatives = [][]ruleset.Match{{ports}}
	}
	n.addAlternatives(alternatives...)
}

// mergePorts returns one match for several that look at the same port.
func mergePorts(ways [][]ruleset.Match) (ruleset.Match, bool) {
	var all ruleset.Ports
	var ranges []interception.PortRange
	for i, way := range ways {
		ports, is := way[0].(ruleset.Ports)
		if !is || i > 0 && ports.Source != all.Source {
			return nil, false
		}
		all = ports
		ranges = append(ranges, ports.Ranges...)
	}
	all.Ranges = interception.NewPortRanges(ranges...)
	return all, len(ways) > 0
}

// matchesFor returns iptables' matches for a property that has a value, or one of a
// range. If all packets of the family have it, or none has, it returns no match and
// which of the two.
func (r *nativeReader) matchesFor(loaded operand, element setElement, negated bool) (matches []ruleset.Match, holds bool) {
	switch loaded.property {
	case propertyFamily:
		number := map[ruleset.Family]byte{ruleset.IPv4: unix.NFPROTO_IPV4, ruleset.IPv6: unix.NFPROTO_IPV6}[r.family]
		return nil, bytes.Equal(element.first, []byte{number})
	case propertyEtherType:
		number := map[ruleset.Family]uint32{ruleset.IPv4: unix.ETH_P_IP, ruleset.IPv6: unix.ETH_P_IPV6}[r.family]
		return nil, bigEndian(element.first) == number
	case propertySource, propertyDestination:
		prefixes, ok := r.prefixes(loaded, element)
		if !ok {
			break
		}
		for _, p := range prefixes {
			if loaded.property == propertySource {
				matches = append(matches, ruleset.Source{Prefix: p, Not: negated})
			} else {
				matches = append(matches, ruleset.Destination{Prefix: p, Not: negated})
			}
		}
		return matches, false
	default:
		m := r.rangeMatch(loaded, element, negated)
		if m == nil && (element.last == nil || bytes.Equal(element.first, element.last)) {
			m = r.valueMatch(loaded, element.first, negated)
		}
		if m != nil {
			return []ruleset.Match{m}, false
		}
	}
	return []ruleset.Match{opaque("expression")}, false
}

// rangeMatch returns the match of a property that may have a range; nil if iptables
// has none.
func (r *nativeReader) rangeMatch(loaded operand, element setElement, negated bool) ruleset.Match {
	from, to := loaded.numbers(element)
	if loaded.mask != nil || from > to {
		return nil
	}
	switch loaded.property {
	case propertySourcePort, propertyDestinationPort:
		ranges := interception.NewPortRanges(interception.PortRange{First: uint16(from), Last: uint16(to)})
		return ruleset.Ports{Source: loaded.property == propertySourcePort, Ranges: ranges, Not: negated}
	case propertyUID, propertyGID:
		return ruleset.Owner{Group: loaded.property == propertyGID, First: from, Last: to, Not: negated}
	}
	return nil
}

// valueMatch returns the match of a property that has one value; nil if iptables
// has none.
func (r *nativeReader) valueMatch(loaded operand, value []byte, negated bool) ruleset.Match {
	number := native(value)
	if loaded.network {
		number = bigEndian(value)
	}
	switch loaded.property {
	case propertyTCPFlags:
		if opening := []byte{tcpFIN | tcpSYN | tcpRST | tcpACK}; bytes.Equal(loaded.mask, opening) && bytes.Equal(value, []byte{tcpSYN}) {
			return ruleset.SYN{Not: negated}
		}
		return nil
	case propertyMark, propertyConnMark:
		if mask, xor := loaded.bits(); xor == 0 {
			return ruleset.Mark{Connection: loaded.property == propertyConnMark, Value: number, Mask: mask, Not: negated}
		}
		return nil
	case propertyState:
		return stateMatch(loaded, number, negated)
	case propertySourceType, propertyDestinationType:
		if number == unix.RTN_LOCAL {
			return ruleset.AddressType{Destination: loaded.property == propertyDestinationType, Not: negated}
		}
		return nil
	}
	if loaded.mask != nil {
		return nil
	}
	switch loaded.property {
	case propertyProtocol:
		return ruleset.Protocol{Name: protocolName(value), Not: negated}
	case propertyInInterface:
		return ruleset.InInterface{Name: interfaceName(value), Not: negated}
	case propertyOutInterface:
		return ruleset.OutInterface{Name: interfaceName(value), Not: negated}
	case propertyInIndex, propertyOutIndex:
		return r.indexMatch(loaded.property, number, negated)
	}
	return nil
}

// indexMatch returns the match of an interface by its number; nil if there is none.
func (r *nativeReader) indexMatch(p property, number uint32, negated bool) ruleset.Match {
	name, known := r.links[number]
	switch {
	case !known:
		return nil
	case p == propertyInIndex:
		return ruleset.InInterface{Name: name, Not: negated}
	}
	return ruleset.OutInterface{Name: name, Not: negated}
}

// stateMatch returns the match of conntrack's state. A state is a bit: "ct state
// new" asks that its bit is not 0.
func stateMatch(loaded operand, number uint32, negated bool) ruleset.Match {
	switch {
	case loaded.mask != nil && number == 0:
		return ruleset.Conntrack{States: statesOf(native(loaded.mask)), Not: !negated}
	case loaded.mask == nil:
		return ruleset.Conntrack{States: statesOf(number), Not: negated}
	}
	return nil
}

// Flags of TCP.
const (
	tcpFIN = 1 << iota
	tcpSYN
	tcpRST
	_
	tcpACK
)
