package nft

import (
	"bytes"
	"math"
	"math/bits"
	"reflect"
	"slices"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Operand is what a rule of nf_tables compares or sets: a property of the packet,
// or a value.
type Operand struct {
	Property Property
	Mask     []byte // bits of it that are compared; nil for all
	Xor      []byte
	Network  bool   // in network byte order, though the property is not
	Value    []byte // of a constant
}

// Property is what of a packet a rule compares.
type Property int

// The properties. Values of ports, addresses, protocols and names are in network
// byte order, all others in that of this machine.
const (
	PropertyUnknown Property = iota
	PropertyConstant
	PropertyFamily
	PropertyEtherType
	PropertyProtocol
	PropertySource
	PropertyDestination
	PropertySourcePort
	PropertyDestinationPort
	PropertyTCPFlags
	PropertyInInterface
	PropertyOutInterface
	PropertyInIndex
	PropertyOutIndex
	PropertyUID
	PropertyGID
	PropertyMark
	PropertyConnMark
	PropertySocketMark // of Shunt's table alone: of a listener's socket it is not known
	PropertyState
	PropertySourceType
	PropertyDestinationType
)

// Operation is how a rule compares a property with a value.
type Operation string

// The operations.
const (
	Equal          Operation = "=="
	NotEqual       Operation = "!="
	Less           Operation = "<"
	LessOrEqual    Operation = "<="
	Greater        Operation = ">"
	GreaterOrEqual Operation = ">="
)

// Element is one value of a set or one range, and its verdict in a verdict map.
type Element struct {
	First, Last []byte // Last is nil for a single value
	Verdict     ruleset.Target
}

// Numbers of linux/netfilter.h, linux/if_ether.h, linux/rtnetlink.h and
// linux/in.h, which other systems' headers have not.
const (
	numberIPv4, numberIPv6       = 2, 10
	etherTypeIPv4, etherTypeIPv6 = 0x0800, 0x86dd
	routeLocal                   = 2
	protocolTCP, protocolUDP     = 6, 17
)

// bits returns the mask of an Operand that is a mark, and the value that is xor-ed
// in.
func (o Operand) bits() (mask, xor uint32) {
	if o.Mask == nil {
		return math.MaxUint32, 0
	}
	return Native(o.Mask), Native(o.Xor)
}

// AddComparison adds a comparison with a value. nft(8) writes a range as two of
// them.
func (n *RuleMaker) AddComparison(of Operand, operation Operation, value []byte) {
	if from := n.from; from != nil && operation == LessOrEqual && reflect.DeepEqual(from.of, of) {
		n.from = nil
		n.AddMembership(of, []Element{{First: from.first, Last: value}}, false)
		return
	}
	n.settle()
	switch operation {
	case Equal:
		n.AddMembership(of, []Element{{First: value}}, false)
	case NotEqual:
		n.AddMembership(of, []Element{{First: value}}, true)
	case Less:
		n.AddMembership(of, []Element{{First: make([]byte, len(value)), Last: Before(value)}}, false)
	case LessOrEqual:
		n.AddMembership(of, []Element{{First: make([]byte, len(value)), Last: value}}, false)
	case Greater:
		n.AddMembership(of, []Element{{First: after(value), Last: highest(value)}}, false)
	default:
		n.from = &bound{of, value}
	}
}

// highest returns the greatest value of the same size.
func highest(value []byte) []byte { return bytes.Repeat([]byte{0xff}, len(value)) }

// after returns the value that is one more, of the same size.
func after(value []byte) []byte {
	more := slices.Clone(value)
	for i := len(more) - 1; i >= 0; i-- {
		if more[i]++; more[i] != 0 {
			break
		}
	}
	return more
}

// AddMembership adds the condition that a property has one of some values or,
// negated, none of them.
func (n *RuleMaker) AddMembership(of Operand, elements []Element, negated bool) {
	var alternatives [][]ruleset.Match
	var all []ruleset.Match
	for _, element := range elements {
		matches, holds := n.of.matchesFor(of, element, negated)
		if matches == nil { // every packet of the family has it, or none has
			if holds != negated {
				if !negated {
					return
				}
				continue
			}
			if negated {
				n.Never = true
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
func (r Translator) matchesFor(loaded Operand, element Element, negated bool) (matches []ruleset.Match, holds bool) {
	switch loaded.Property {
	case PropertyFamily:
		number := map[ruleset.Family]byte{ruleset.IPv4: numberIPv4, ruleset.IPv6: numberIPv6}[r.Family]
		return nil, bytes.Equal(element.First, []byte{number})
	case PropertyEtherType:
		number := map[ruleset.Family]uint32{ruleset.IPv4: etherTypeIPv4, ruleset.IPv6: etherTypeIPv6}[r.Family]
		return nil, BigEndian(element.First) == number
	case PropertySource, PropertyDestination:
		prefixes, ok := r.prefixes(loaded, element)
		if !ok {
			break
		}
		for _, p := range prefixes {
			if loaded.Property == PropertySource {
				matches = append(matches, ruleset.Source{Prefix: p, Not: negated})
			} else {
				matches = append(matches, ruleset.Destination{Prefix: p, Not: negated})
			}
		}
		return matches, false
	default:
		m := r.rangeMatch(loaded, element, negated)
		if m == nil && (element.Last == nil || bytes.Equal(element.First, element.Last)) {
			m = r.valueMatch(loaded, element.First, negated)
		}
		if m != nil {
			return []ruleset.Match{m}, false
		}
	}
	return []ruleset.Match{opaque("expression")}, false
}

// rangeMatch returns the match of a property that may have a range; nil if iptables
// has none.
func (r Translator) rangeMatch(loaded Operand, element Element, negated bool) ruleset.Match {
	from, to := loaded.numbers(element)
	if loaded.Mask != nil || from > to {
		return nil
	}
	switch loaded.Property {
	case PropertySourcePort, PropertyDestinationPort:
		ranges := interception.NewPortRanges(interception.PortRange{First: uint16(from), Last: uint16(to)})
		return ruleset.Ports{Source: loaded.Property == PropertySourcePort, Ranges: ranges, Not: negated}
	case PropertyUID, PropertyGID:
		return ruleset.Owner{Group: loaded.Property == PropertyGID, First: from, Last: to, Not: negated}
	}
	return nil
}

// valueMatch returns the match of a property that has one value; nil if iptables
// has none.
func (r Translator) valueMatch(loaded Operand, value []byte, negated bool) ruleset.Match {
	number := Native(value)
	if loaded.Network {
		number = BigEndian(value)
	}
	switch loaded.Property {
	case PropertyTCPFlags:
		if opening := []byte{OpeningFlags}; bytes.Equal(loaded.Mask, opening) && bytes.Equal(value, []byte{FlagSYN}) {
			return ruleset.SYN{Not: negated}
		}
		return nil
	case PropertyMark, PropertyConnMark, PropertySocketMark:
		return markMatch(loaded, number, negated)
	case PropertyState:
		return stateMatch(loaded, number, negated)
	case PropertySourceType, PropertyDestinationType:
		if number == routeLocal {
			return ruleset.AddressType{Destination: loaded.Property == PropertyDestinationType, Not: negated}
		}
		return nil
	}
	if loaded.Mask != nil {
		return nil
	}
	switch loaded.Property {
	case PropertyProtocol:
		return ruleset.Protocol{Name: protocolName(value), Not: negated}
	case PropertyInInterface:
		return ruleset.InInterface{Name: interfaceName(value), Not: negated}
	case PropertyOutInterface:
		return ruleset.OutInterface{Name: interfaceName(value), Not: negated}
	case PropertyInIndex, PropertyOutIndex:
		return r.indexMatch(loaded.Property, number, negated)
	}
	return nil
}

// markMatch returns the match of a mark; nil if there is none.
func markMatch(loaded Operand, value uint32, negated bool) ruleset.Match {
	mask, xor := loaded.bits()
	switch {
	case xor != 0:
		return nil
	case loaded.Property != PropertySocketMark:
		return ruleset.Mark{Connection: loaded.Property == PropertyConnMark, Value: value, Mask: mask, Not: negated}
	case negated:
		return nil
	}
	return ruleset.SocketMark{Value: value, Mask: mask}
}

// indexMatch returns the match of an interface by its number; nil if there is none.
func (r Translator) indexMatch(p Property, number uint32, negated bool) ruleset.Match {
	name, known := r.Links[number]
	switch {
	case !known:
		return nil
	case p == PropertyInIndex:
		return ruleset.InInterface{Name: name, Not: negated}
	}
	return ruleset.OutInterface{Name: name, Not: negated}
}

// stateMatch returns the match of conntrack's state. A state is a bit: "ct state
// new" asks that its bit is not 0. A comparison with several bits at once, which nft
// makes of "ct state != established,related", is one that no state passes.
func stateMatch(loaded Operand, number uint32, negated bool) ruleset.Match {
	switch {
	case loaded.Mask != nil && number == 0:
		return ruleset.Conntrack{States: statesOf(Native(loaded.Mask)), Not: !negated}
	case loaded.Mask == nil && bits.OnesCount32(number) != 1:
		return ruleset.Conntrack{Not: negated}
	case loaded.Mask == nil:
		return ruleset.Conntrack{States: statesOf(number), Not: negated}
	}
	return nil
}

// FlagSYN is the flag of tcp that is set alone of OpeningFlags in a segment that
// opens a connection.
const (
	FlagSYN      = 2
	OpeningFlags = 1 | FlagSYN | 4 | 16 // FIN, SYN, RST, ACK
)
