package kernel

import (
	"bytes"
	"math"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// operand is what a register of a rule holds: a property of the packet, or a
// value.
type operand struct {
	property property
	size     int    // of what was loaded, in bytes
	mask     []byte // bits of it that are looked at; nil for all
	xor      []byte
	network  bool   // in the network's byte order, where the property is not
	value    []byte // of a constant
}

// property is what of a packet a rule looks at.
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
)

// bits are the mask and the value that is xor-ed in, of an operand of a mark.
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

// part is where something lies in a packet.
type part struct{ base, offset, size uint32 }

const (
	networkHeader   = unix.NFT_PAYLOAD_NETWORK_HEADER
	transportHeader = unix.NFT_PAYLOAD_TRANSPORT_HEADER
)

var transportParts = map[part]property{
	{transportHeader, 0, 2}: propertySourcePort, {transportHeader, 2, 2}: propertyDestinationPort,
	{transportHeader, 13, 1}: propertyTCPFlags,
}

// payload says what of a packet lies at an offset. Of an address it may be the
// first bytes.
func (r *nativeReader) payload(base, offset, size uint32) operand {
	o := operand{size: int(size), property: transportParts[part{base, offset, size}]}
	if base != networkHeader {
		return o
	}
	source, destination, protocol, length := uint32(12), uint32(16), uint32(9), uint32(4)
	if r.family == ruleset.IPv6 {
		source, destination, protocol, length = 8, 24, 6, 16
	}
	switch {
	case offset == source && size <= length:
		o.property = propertySource
	case offset == destination && size <= length:
		o.property = propertyDestination
	case offset == protocol && size == 1:
		o.property = propertyProtocol
	}
	return o
}

// compare adds a comparison with a value.
func (n *nativeRule) compare(o operand, operation uint32, value []byte) {
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
		n.within(o, equal, false)
	case unix.NFT_CMP_NEQ:
		n.within(o, equal, true)
	case unix.NFT_CMP_LT:
		n.within(o, []setElement{{first: lowest, last: before(value)}}, false)
	case unix.NFT_CMP_LTE:
		n.within(o, []setElement{{first: lowest, last: value}}, false)
	case unix.NFT_CMP_GT:
		n.within(o, []setElement{{first: after, last: highest}}, false)
	default:
		n.within(o, []setElement{{first: value, last: highest}}, false)
	}
}

// within adds the condition that a property has one of some values, or with not
// that it has none of them.
func (n *nativeRule) within(o operand, elements []setElement, not bool) {
	var one [][]ruleset.Match
	var none []ruleset.Match
	for _, e := range elements {
		matches, holds := n.reader.say(o, e, not)
		if matches == nil { // every packet of the family has it, or none
			if holds != not {
				if !not {
					return
				}
				continue
			}
			if not {
				n.never = true
				return
			}
			continue
		}
		for _, m := range matches {
			one = append(one, []ruleset.Match{m})
		}
		none = append(none, matches...)
	}
	if not {
		n.where(none)
		return
	}
	if ports, ok := allPorts(one); ok {
		one = [][]ruleset.Match{{ports}}
	}
	n.where(one...)
}

// allPorts makes one match of several that look at the same port.
func allPorts(ways [][]ruleset.Match) (ruleset.Match, bool) {
	var all ruleset.Ports
	var ranges []interception.PortRange
	for i, way := range ways {
		p, is := way[0].(ruleset.Ports)
		if !is || i > 0 && p.Source != all.Source {
			return nil, false
		}
		all = p
		ranges = append(ranges, p.Ranges...)
	}
	all.Ranges = interception.NewPortRanges(ranges...)
	return all, len(ways) > 0
}

// say says in iptables' terms that a property has a value, or one of a range;
// not negates each. Where there is nothing to say, because all packets of the
// family have it or none has, it returns no match, and which of both.
func (r *nativeReader) say(o operand, e setElement, not bool) (matches []ruleset.Match, holds bool) {
	switch o.property {
	case propertyFamily:
		number := map[ruleset.Family]byte{ruleset.IPv4: unix.NFPROTO_IPV4, ruleset.IPv6: unix.NFPROTO_IPV6}[r.family]
		return nil, bytes.Equal(e.first, []byte{number})
	case propertyEtherType:
		number := map[ruleset.Family]uint32{ruleset.IPv4: unix.ETH_P_IP, ruleset.IPv6: unix.ETH_P_IPV6}[r.family]
		return nil, bigEndian(e.first) == number
	case propertySource, propertyDestination:
		prefixes, ok := r.prefixes(o, e)
		if !ok {
			break
		}
		for _, p := range prefixes {
			if o.property == propertySource {
				matches = append(matches, ruleset.Source{Prefix: p, Not: not})
			} else {
				matches = append(matches, ruleset.Destination{Prefix: p, Not: not})
			}
		}
		return matches, false
	default:
		m := r.sayNumber(o, e, not)
		if m == nil && (e.last == nil || bytes.Equal(e.first, e.last)) {
			m = r.sayValue(o, e.first, not)
		}
		if m != nil {
			return []ruleset.Match{m}, false
		}
	}
	return []ruleset.Match{opaque("expression")}, false
}

// sayNumber is for properties of which there can be a range; nil where it
// cannot be said.
func (r *nativeReader) sayNumber(o operand, e setElement, not bool) ruleset.Match {
	from, to := o.numbers(e)
	if o.mask != nil || from > to {
		return nil
	}
	switch o.property {
	case propertySourcePort, propertyDestinationPort:
		ranges := interception.NewPortRanges(interception.PortRange{First: uint16(from), Last: uint16(to)})
		return ruleset.Ports{Source: o.property == propertySourcePort, Ranges: ranges, Not: not}
	case propertyUID, propertyGID:
		return ruleset.Owner{Group: o.property == propertyGID, First: from, Last: to, Not: not}
	}
	return nil
}

// sayValue is for properties that have one value; nil where it cannot be said.
func (r *nativeReader) sayValue(o operand, value []byte, not bool) ruleset.Match {
	number := native(value)
	if o.network {
		number = bigEndian(value)
	}
	switch o.property {
	case propertyTCPFlags:
		if opening := []byte{tcpFIN | tcpSYN | tcpRST | tcpACK}; bytes.Equal(o.mask, opening) && bytes.Equal(value, []byte{tcpSYN}) {
			return ruleset.SYN{Not: not}
		}
		return nil
	case propertyMark, propertyConnMark:
		if mask, xor := o.bits(); xor == 0 {
			return ruleset.Mark{Connection: o.property == propertyConnMark, Value: number, Mask: mask, Not: not}
		}
		return nil
	case propertyState:
		return sayState(o, number, not)
	}
	if o.mask != nil {
		return nil
	}
	switch o.property {
	case propertyProtocol:
		return ruleset.Protocol{Name: protocolName(value), Not: not}
	case propertyInInterface:
		return ruleset.InInterface{Name: interfaceName(value), Not: not}
	case propertyOutInterface:
		return ruleset.OutInterface{Name: interfaceName(value), Not: not}
	case propertyInIndex, propertyOutIndex:
		name, known := r.links[number]
		switch {
		case !known:
			return nil
		case o.property == propertyInIndex:
			return ruleset.InInterface{Name: name, Not: not}
		}
		return ruleset.OutInterface{Name: name, Not: not}
	}
	return nil
}

// sayState reads conntrack's state. It is a bit: "ct state new" is that its bit
// is not 0.
func sayState(o operand, number uint32, not bool) ruleset.Match {
	switch {
	case o.mask != nil && number == 0:
		return ruleset.Conntrack{States: statesOf(native(o.mask)), Not: !not}
	case o.mask == nil:
		return ruleset.Conntrack{States: statesOf(number), Not: not}
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
