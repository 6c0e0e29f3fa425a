package ruleset

import (
	"maps"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
)

// Field is a property of packets that rules and routing compare. The bits of the
// packet mark and of the connection mark are divided into groups, each of which is
// a field of its own: Space.Mark and Space.ConnMark.
type Field int

// The fields that packets of every space have.
const (
	FieldProtocol Field = iota + 1
	FieldInterface
	FieldState
	FieldUID
	FieldGID
	FieldSrc
	FieldDst
	FieldSrcPort
	FieldDstPort
	// FieldHopPort is the source port of a connection that the proxy makes because
	// of another. No packet begins with it.
	FieldHopPort
	fieldGroups // the first of the groups of marks
)

// fixed is the field of what is the same for all packets of a class.
const fixed Field = 0

// Protocols are those that a walk knows.
var Protocols = []string{"tcp", "udp"}

// Space is what packets of one family can differ in.
type Space struct {
	Family     Family
	interfaces []string // sorted; those that a rule tells apart, and one that none does
	groups     []uint32 // bits of marks, by which of them are only compared and set together
	packs      []packing
	prefer     map[Field][]Number
	unnamed    netip.Addr // an address that no rule names
}

// NewSpace returns the space in which packets meet the rules of some stacks. A host
// may have further interfaces.
func NewSpace(family Family, host Host, stacks ...*Stack) *Space {
	space := &Space{Family: family, groups: []uint32{allBits}, prefer: map[Field][]Number{}}
	names := map[string]bool{"": true, loopbackName: true, host.Uplink: true, unnamedInterface: true}
	for _, i := range host.Interfaces {
		names[i.Name] = true
	}
	for _, stack := range stacks {
		stack.eachRule(func(r *Rule) {
			for _, m := range r.Matches {
				space.learn(m, names)
			}
			space.learnMasks(r.Target)
		})
		for _, p := range stack.routing.Rules {
			space.divide(p.Mask)
			names[p.OutInterface] = true
		}
	}
	space.interfaces = slices.Sorted(maps.Keys(names))
	for _, group := range space.groups {
		space.packs = append(space.packs, packingOf(group))
	}
	space.preferValues(host)
	space.unnamed = unnamedAddress(family, stacks)
	return space
}

// unnamedInterface is an interface that no rule names.
const unnamedInterface = "other0"

// eachRule calls do for each rule of the stack, for some more than once.
func (s *Stack) eachRule(do func(*Rule)) {
	seen := map[*Chain]bool{}
	for _, bases := range s.hooks {
		for _, b := range bases {
			for _, chain := range b.chains {
				if seen[chain] {
					continue
				}
				seen[chain] = true
				for i := range chain.Rules {
					do(&chain.Rules[i])
				}
			}
		}
	}
}

func (s *Space) learn(m Match, names map[string]bool) {
	switch m := m.(type) {
	case InInterface:
		names[strings.Replace(m.Name, "+", "0", 1)] = true
	case OutInterface:
		names[strings.Replace(m.Name, "+", "0", 1)] = true
	case Mark:
		s.divide(m.Mask)
	case SocketMark:
		s.divide(m.Mask)
	}
}

// learnMasks divides the bits of marks where a target sets only some of them.
func (s *Space) learnMasks(target Target) {
	switch t := target.(type) {
	case SetMark:
		s.divide(t.Mask)
	case SaveMark:
		s.divide(t.packet())
		s.divide(t.connection())
	case RestoreMark:
		s.divide(t.packet())
		s.divide(t.connection())
	case TProxy:
		s.divide(t.Mask)
	case Sequence:
		for _, one := range t {
			s.learnMasks(one)
		}
	case OpaqueTarget:
		s.learnMasks(t.equivalent(s.Family))
	}
}

// divide parts the groups of bits into those in a mask and those outside it.
func (s *Space) divide(mask uint32) {
	for i, n := 0, len(s.groups); i < n; i++ {
		inside, outside := s.groups[i]&mask, s.groups[i]&^mask
		if inside != 0 && outside != 0 {
			s.groups[i] = inside
			s.groups = append(s.groups, outside)
		}
	}
}

// packing moves the bits of a mask together.
type packing struct {
	mask  uint32
	count int
	whole bool // the mask has every bit
}

func packingOf(mask uint32) packing { return packing{mask, bits.OnesCount32(mask), mask == allBits} }

func (p packing) pack(value uint32) uint32 {
	if p.whole {
		return value
	}
	var packed uint32
	for left, at := p.mask, 0; left != 0; left, at = left&(left-1), at+1 {
		packed |= value >> bits.TrailingZeros32(left) & 1 << at
	}
	return packed
}

func (p packing) unpack(packed uint32) uint32 {
	if p.whole {
		return packed
	}
	var value uint32
	for left, at := p.mask, 0; left != 0; left, at = left&(left-1), at+1 {
		value |= packed >> at & 1 << bits.TrailingZeros32(left)
	}
	return value
}

// fieldCount is how many fields the packets of the space have.
func (s *Space) fieldCount() int { return int(fieldGroups) + 2*len(s.groups) }

func (s *Space) markField(connection bool, group int) Field {
	field := fieldGroups + Field(2*group)
	if connection {
		field++
	}
	return field
}

// All returns all values of a field.
func (s *Space) All(f Field) Values {
	first, last := Number{}, Number{low: allBits}
	switch f {
	case FieldProtocol:
		last.low = uint64(len(Protocols) - 1)
	case FieldInterface:
		last.low = uint64(len(s.interfaces) - 1)
	case FieldState:
		last.low = uint64(len(states) - 1)
	case FieldSrcPort, FieldDstPort:
		last.low = 1<<16 - 1
	case FieldHopPort: // the kernel does not draw 0
		first.low, last.low = 1, 1<<16-1
	case FieldSrc, FieldDst:
		if s.Family == IPv6 {
			last = Number{1<<64 - 1, 1<<64 - 1}
		}
	case FieldUID, FieldGID:
	default:
		last.low = 1<<s.packs[int(f-fieldGroups)/2].count - 1
	}
	return Values{{first, last}}
}

// ProtocolValues and the functions after it return sets of values by their names.
func (s *Space) ProtocolValues(names ...string) Values {
	return valuesOf(Protocols, names)
}

// StateValues returns the set of some states.
func (s *Space) StateValues(named ...State) Values { return valuesOf(states, named) }

// From returns the set of the interfaces of the space by which packets come in from
// outside.
func (s *Space) From() Values {
	lo, _ := slices.BinarySearch(s.interfaces, loopbackName)
	return s.All(FieldInterface).Without(Only(0, lo))
}

// OfInterface returns the set of one interface.
func (s *Space) OfInterface(name string) Values { return valuesOf(s.interfaces, []string{name}) }

func valuesOf[T comparable](all, named []T) Values {
	return placesWhere(all, func(name T) bool { return slices.Contains(named, name) })
}

// placesWhere returns the places in a list whose names are accepted.
func placesWhere[T any](all []T, accepted func(T) bool) Values {
	var found Values
	for i, name := range all {
		if accepted(name) {
			found = append(found, Interval{numberOf(i), numberOf(i)})
		}
	}
	return found.sorted()
}

// localValues returns the set of addresses that a host has, with those of lo.
func (s *Space) localValues(host *Host) Values {
	own := s.LoopbackValues()
	for _, a := range host.Addresses {
		if s.Family.Of(a) {
			own = append(own, Interval{addressNumber(a), addressNumber(a)})
		}
	}
	return own.sorted()
}

var (
	loopbackValues4 = AddressValues(netip.MustParsePrefix("127.0.0.0/8"))
	loopbackValues6 = AddressValues(netip.MustParsePrefix("::1/128"))
	thisHost4       = AddressValues(netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("0.0.0.0/32"))
	thisHost6       = AddressValues(netip.MustParsePrefix("::/127"), netip.MustParsePrefix("::ffff:0.0.0.0/96"))
)

// LoopbackValues returns the set of loopback addresses.
func (s *Space) LoopbackValues() Values {
	if s.Family == IPv4 {
		return slices.Clone(loopbackValues4)
	}
	return slices.Clone(loopbackValues6)
}

// ThisHostValues returns the set of addresses for which ThisHost is true.
func (s *Space) ThisHostValues() Values {
	if s.Family == IPv4 {
		return thisHost4
	}
	return thisHost6
}

// numberOf returns the value of a field of a packet.
func (s *Space) numberOf(f Field, p Packet) Number {
	switch f {
	case FieldProtocol:
		return numberOf(slices.Index(Protocols, p.Protocol))
	case FieldInterface:
		if name, found := slices.BinarySearch(s.interfaces, p.Interface); found {
			return numberOf(name)
		}
		return numberOf(slices.Index(s.interfaces, unnamedInterface))
	case FieldState:
		return numberOf(slices.Index(states, p.State))
	case FieldUID:
		return numberOf(p.UID)
	case FieldGID:
		return numberOf(p.GID)
	case FieldSrc:
		return addressNumber(p.Src)
	case FieldDst:
		return addressNumber(p.Dst)
	case FieldSrcPort, FieldHopPort:
		return numberOf(p.SrcPort)
	case FieldDstPort:
		return numberOf(p.DstPort)
	}
	pack := s.packs[int(f-fieldGroups)/2]
	if int(f-fieldGroups)%2 == 1 {
		return numberOf(pack.pack(p.ConnMark))
	}
	return numberOf(pack.pack(p.Mark))
}

// put gives a packet the value of a field.
func (s *Space) put(p *Packet, f Field, n Number) {
	switch f {
	case FieldProtocol:
		p.Protocol = Protocols[n.low]
	case FieldInterface:
		p.Interface = s.interfaces[n.low]
	case FieldState:
		p.State = states[n.low]
	case FieldUID:
		p.UID = uint32(n.low)
	case FieldGID:
		p.GID = uint32(n.low)
	case FieldSrc:
		p.Src = n.address(s.Family)
	case FieldDst:
		p.Dst = n.address(s.Family)
	case FieldSrcPort, FieldHopPort:
		p.SrcPort = uint16(n.low)
	case FieldDstPort:
		p.DstPort = uint16(n.low)
	default:
		group := int(f-fieldGroups) / 2
		mark := &p.Mark
		if int(f-fieldGroups)%2 == 1 {
			mark = &p.ConnMark
		}
		*mark = *mark&^s.groups[group] | s.packs[group].unpack(uint32(n.low))
	}
}

// preferValues chooses values for the packets that stand for their class: such as
// people meet.
func (s *Space) preferValues(host Host) {
	for _, a := range outsideOf(s.Family) {
		s.prefer[FieldSrc] = append(s.prefer[FieldSrc], addressNumber(a))
	}
	s.prefer[FieldDst] = slices.Clone(s.prefer[FieldSrc])
	for _, a := range host.Addresses {
		if s.Family.Of(a) {
			s.prefer[FieldSrc] = append(s.prefer[FieldSrc], addressNumber(a))
			s.prefer[FieldDst] = append(s.prefer[FieldDst], addressNumber(a))
		}
	}
	s.prefer[FieldInterface] = s.OfInterface(host.Uplink).numbers()
	s.prefer[FieldUID] = []Number{numberOf(defaultID)}
	s.prefer[FieldGID] = s.prefer[FieldUID]
	s.prefer[FieldSrcPort] = []Number{numberOf(40000)}
	s.prefer[FieldHopPort] = []Number{numberOf(50000)}
	s.prefer[FieldDstPort] = []Number{numberOf(80), numberOf(8080)}
	s.prefer[FieldState] = s.StateValues(New).numbers()
}

// Unnamed returns an address of another host that no rule tells from others, if
// there is one.
func (s *Space) Unnamed() netip.Addr { return s.unnamed }

func unnamedAddress(family Family, stacks []*Stack) netip.Addr {
	candidates := outsideOf(family)
	for _, candidate := range candidates {
		named := false
		for _, stack := range stacks {
			stack.eachRule(func(r *Rule) {
				named = named || rulePath{matches: r.Matches}.namesAddress(candidate)
			})
		}
		if !named {
			return candidate
		}
	}
	return candidates[0]
}
