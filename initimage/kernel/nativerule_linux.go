package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

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

// nativeRule turns one rule of nf_tables into rules of iptables' kind: more
// than one where it looks for several values, or does something before it has
// looked at all.
type nativeRule struct {
	reader    *nativeReader
	registers map[uint32]operand
	ways      [][]ruleset.Match // any of which is enough
	does      ruleset.Sequence
	never     bool // no packet of the family meets it
	rules     []ruleset.Rule
}

// maxAlternatives bounds the rules that one rule with a set becomes.
const maxAlternatives = 256

func (r *nativeReader) rules(expressions [][]byte) ([]ruleset.Rule, error) {
	n := &nativeRule{reader: r, registers: map[uint32]operand{}, ways: [][]ruleset.Match{nil}}
	for _, expression := range expressions {
		attrs := attributes(expression)
		if err := n.take(text(attrs[unix.NFTA_EXPR_NAME]), attributes(attrs[unix.NFTA_EXPR_DATA])); err != nil {
			return nil, err
		}
		if n.never {
			return n.rules, nil
		}
	}
	n.finish()
	return n.rules, nil
}

// finish makes rules of what has been collected.
func (n *nativeRule) finish() {
	var target ruleset.Target
	switch len(n.does) {
	case 0:
		return
	case 1:
		target = n.does[0]
	default:
		target = slices.Clone(n.does)
	}
	for _, matches := range n.ways {
		n.rules = append(n.rules, ruleset.Rule{Matches: matches, Target: target})
	}
	n.does = nil
}

// where adds conditions, any of which is enough.
func (n *nativeRule) where(any ...[]ruleset.Match) {
	n.finish()
	if len(any)*len(n.ways) > maxAlternatives {
		any = [][]ruleset.Match{{opaque("set")}}
	}
	var ways [][]ruleset.Match
	for _, way := range n.ways {
		for _, more := range any {
			ways = append(ways, slices.Concat(way, more))
		}
	}
	n.ways = ways
	n.never = len(ways) == 0
}

func (n *nativeRule) unknown(what string) { n.where([]ruleset.Match{opaque(what)}) }

func opaque(what string) ruleset.Match { return ruleset.OpaqueMatch{Args: []string{"nft:" + what}} }

// do adds what the rule does. TPROXY, which ends a rule of iptables, stays the
// last: what is set behind it, it sets as well.
func (n *nativeRule) do(t ruleset.Target) {
	at := len(n.does)
	if at > 0 {
		_, proxied := n.does[at-1].(ruleset.TProxy)
		if verdict, ends := t.(ruleset.Verdict); proxied && ends && verdict != ruleset.Drop {
			return
		}
		if proxied {
			at--
		}
	}
	n.does = slices.Insert(n.does, at, t)
}

func (n *nativeRule) doUnknown(what string) {
	n.do(ruleset.OpaqueTarget{Args: []string{"-j", "nft:" + what}})
}

// slot is the place of a register, in words of four bytes: there are two ways
// to count them.
func slot(register []byte) uint32 {
	r := bigEndian(register)
	if r <= unix.NFT_REG_4 {
		return r * 4
	}
	return r - 4
}

// passive expressions change nothing about where a packet goes.
var passiveExpressions = []string{"counter", "log", "last", "dup", "masq", "secmark", "flow_offload"}

// Expressions whose attributes x/sys/unix does not name (linux/netfilter/nf_tables.h).
const (
	bitwiseOperation  = 6
	tproxyAddress     = 2
	tproxyPort        = 3
	natDestination    = 1
	lookupFlags       = 5
	lookupFlagInverse = 1
	matchName         = 1
)

// take adds one expression.
func (n *nativeRule) take(name string, attrs map[uint16][]byte) error {
	load := func(register uint16, o operand) { n.registers[slot(attrs[register])] = o }
	switch name {
	case "meta":
		if attrs[unix.NFTA_META_SREG] != nil {
			n.setMeta(bigEndian(attrs[unix.NFTA_META_KEY]), n.registers[slot(attrs[unix.NFTA_META_SREG])])
			return nil
		}
		load(unix.NFTA_META_DREG, metaOperand(bigEndian(attrs[unix.NFTA_META_KEY])))
	case "ct":
		key := bigEndian(attrs[unix.NFTA_CT_KEY])
		if attrs[unix.NFTA_CT_SREG] != nil {
			n.setConnection(key, n.registers[slot(attrs[unix.NFTA_CT_SREG])])
			return nil
		}
		o := operand{size: 4}
		switch key {
		case unix.NFT_CT_STATE:
			o.property = propertyState
		case unix.NFT_CT_MARK:
			o.property = propertyConnMark
		}
		load(unix.NFTA_CT_DREG, o)
	case "payload":
		base, offset, size := bigEndian(attrs[unix.NFTA_PAYLOAD_BASE]), bigEndian(attrs[unix.NFTA_PAYLOAD_OFFSET]), bigEndian(attrs[unix.NFTA_PAYLOAD_LEN])
		o := n.reader.payload(base, offset, size)
		if attrs[unix.NFTA_PAYLOAD_SREG] == nil {
			load(unix.NFTA_PAYLOAD_DREG, o)
		} else if base == unix.NFT_PAYLOAD_TRANSPORT_HEADER && offset < 4 || o.property == propertySource || o.property == propertyDestination {
			n.doUnknown("payload")
		}
	case "immediate":
		return n.immediate(attrs)
	case "bitwise":
		n.bitwise(attrs)
	case "byteorder":
		o := n.registers[slot(attrs[unix.NFTA_BYTEORDER_SREG])]
		o.network = !o.network
		load(unix.NFTA_BYTEORDER_DREG, o)
	case "cmp":
		value := attributes(attrs[unix.NFTA_CMP_DATA])[unix.NFTA_DATA_VALUE]
		n.compare(n.registers[slot(attrs[unix.NFTA_CMP_SREG])], bigEndian(attrs[unix.NFTA_CMP_OP]), value)
	case "range":
		from, to := attributes(attrs[unix.NFTA_RANGE_FROM_DATA])[unix.NFTA_DATA_VALUE], attributes(attrs[unix.NFTA_RANGE_TO_DATA])[unix.NFTA_DATA_VALUE]
		n.within(n.registers[slot(attrs[unix.NFTA_RANGE_SREG])], []setElement{{first: from, last: to}}, bigEndian(attrs[unix.NFTA_RANGE_OP]) == unix.NFT_RANGE_NEQ)
	case "lookup":
		return n.lookup(attrs)
	case "redir":
		n.do(ruleset.Redirect{Port: n.port(attrs[unix.NFTA_REDIR_REG_PROTO_MIN])})
	case "nat":
		if bigEndian(attrs[unix.NFTA_NAT_TYPE]) == natDestination {
			n.do(ruleset.DNAT{Address: n.address(attrs[unix.NFTA_NAT_REG_ADDR_MIN]), Port: n.port(attrs[unix.NFTA_NAT_REG_PROTO_MIN])})
		}
	case "tproxy":
		t := ruleset.TProxy{Address: n.address(attrs[tproxyAddress]), Port: n.port(attrs[tproxyPort])}
		if !t.Address.IsValid() {
			t.Address, _ = netip.AddrFromSlice(anywhere(n.reader.family).IP)
		}
		n.do(t)
	case "notrack":
		n.do(ruleset.NoTrack{})
	case "reject":
		n.do(ruleset.Reject{})
	case "queue":
		n.do(ruleset.OpaqueTarget{Args: []string{"-j", "NFQUEUE"}})
	case "synproxy":
		n.do(ruleset.OpaqueTarget{Args: []string{"-j", "SYNPROXY"}})
	case "exthdr":
		if attrs[unix.NFTA_EXTHDR_SREG] == nil {
			load(unix.NFTA_EXTHDR_DREG, operand{})
		}
	case "match":
		if kind := text(attrs[matchName]); kind != "comment" {
			n.unknown(kind)
		}
	case "target":
		n.do(ruleset.OpaqueTarget{Args: []string{"-j", text(attrs[matchName])}})
	case "fwd":
		n.doUnknown(name)
	default:
		if slices.Contains(passiveExpressions, name) {
			return nil
		}
		// What loads a register makes it unknown; what else there is, limits,
		// quotas and objects, lets some packets on and others not.
		if register, loads := destinations[name]; loads {
			load(register, operand{})
			return nil
		}
		n.unknown(name)
	}
	return nil
}

// destinations are the attributes that name the register which an expression
// loads, of those that are not understood.
var destinations = map[string]uint16{"fib": 1, "socket": 2, "rt": 1, "numgen": 1, "hash": 2, "osf": 1, "tunnel": 2, "xfrm": 1}

func metaOperand(key uint32) operand {
	o := operand{size: 4}
	switch key {
	case unix.NFT_META_L4PROTO:
		o.property, o.size = propertyProtocol, 1
	case unix.NFT_META_NFPROTO:
		o.property, o.size = propertyFamily, 1
	case unix.NFT_META_PROTOCOL:
		o.property, o.size = propertyEtherType, 2
	case unix.NFT_META_IIF:
		o.property = propertyInIndex
	case unix.NFT_META_OIF:
		o.property = propertyOutIndex
	case unix.NFT_META_IIFNAME:
		o.property, o.size = propertyInInterface, unix.IFNAMSIZ
	case unix.NFT_META_OIFNAME:
		o.property, o.size = propertyOutInterface, unix.IFNAMSIZ
	case unix.NFT_META_MARK:
		o.property = propertyMark
	case unix.NFT_META_SKUID:
		o.property = propertyUID
	case unix.NFT_META_SKGID:
		o.property = propertyGID
	}
	return o
}

// payload says what of a packet lies at an offset.
func (r *nativeReader) payload(base, offset, size uint32) operand {
	o := operand{size: int(size)}
	source, destination, protocol, length := uint32(12), uint32(16), uint32(9), uint32(4)
	if r.family == ruleset.IPv6 {
		source, destination, protocol, length = 8, 24, 6, 16
	}
	switch {
	case base == unix.NFT_PAYLOAD_NETWORK_HEADER && offset == source && size <= length:
		o.property = propertySource
	case base == unix.NFT_PAYLOAD_NETWORK_HEADER && offset == destination && size <= length:
		o.property = propertyDestination
	case base == unix.NFT_PAYLOAD_NETWORK_HEADER && offset == protocol && size == 1:
		o.property = propertyProtocol
	case base == unix.NFT_PAYLOAD_TRANSPORT_HEADER && offset == 0 && size == 2:
		o.property = propertySourcePort
	case base == unix.NFT_PAYLOAD_TRANSPORT_HEADER && offset == 2 && size == 2:
		o.property = propertyDestinationPort
	case base == unix.NFT_PAYLOAD_TRANSPORT_HEADER && offset == 13 && size == 1:
		o.property = propertyTCPFlags
	}
	return o
}

// verdicts, by their codes.
var verdicts = map[int32]ruleset.Target{0: ruleset.Drop, 1: ruleset.Accept, unix.NFT_RETURN: ruleset.Return}

func (n *nativeRule) immediate(attrs map[uint16][]byte) error {
	data := attributes(attrs[unix.NFTA_IMMEDIATE_DATA])
	if verdict := data[unix.NFTA_DATA_VERDICT]; verdict != nil {
		if t := verdictOf(verdict); t != nil {
			n.do(t)
		}
		return nil
	}
	n.registers[slot(attrs[unix.NFTA_IMMEDIATE_DREG])] = operand{property: propertyConstant, value: data[unix.NFTA_DATA_VALUE]}
	return nil
}

// verdictOf reads a verdict; nil for the one that goes on.
func verdictOf(data []byte) ruleset.Target {
	attrs := attributes(data)
	chain := text(attrs[unix.NFTA_VERDICT_CHAIN])
	switch code := int32(bigEndian(attrs[unix.NFTA_VERDICT_CODE])); code {
	case unix.NFT_JUMP:
		return ruleset.Jump{Chain: chain}
	case unix.NFT_GOTO:
		return ruleset.Jump{Chain: chain, Goto: true}
	case unix.NFT_CONTINUE:
		return nil
	default:
		if t, known := verdicts[code]; known {
			return t
		}
		return ruleset.OpaqueTarget{Args: []string{"-j", fmt.Sprintf("nft:verdict %d", code)}}
	}
}

func (n *nativeRule) bitwise(attrs map[uint16][]byte) {
	o := n.registers[slot(attrs[unix.NFTA_BITWISE_SREG])]
	if o.mask != nil || bigEndian(attrs[bitwiseOperation]) != 0 {
		o = operand{} // twice, or a shift
	} else {
		o.mask = attributes(attrs[unix.NFTA_BITWISE_MASK])[unix.NFTA_DATA_VALUE]
		o.xor = attributes(attrs[unix.NFTA_BITWISE_XOR])[unix.NFTA_DATA_VALUE]
	}
	n.registers[slot(attrs[unix.NFTA_BITWISE_DREG])] = o
}

func (n *nativeRule) port(register []byte) uint16 {
	if value := n.registers[slot(register)].value; register != nil && len(value) >= 2 {
		return binary.BigEndian.Uint16(value)
	}
	return 0
}

func (n *nativeRule) address(register []byte) netip.Addr {
	if register == nil {
		return netip.Addr{}
	}
	addr, _ := netip.AddrFromSlice(n.registers[slot(register)].value)
	return addr
}

// setMeta is a statement that sets something about a packet; of that, only the
// mark matters to us.
func (n *nativeRule) setMeta(key uint32, o operand) {
	if key != unix.NFT_META_MARK {
		return
	}
	mask, xor := o.bits()
	switch {
	case o.property == propertyConstant:
		n.do(ruleset.SetMark{Value: native(o.value), Mask: math.MaxUint32})
	case o.property == propertyMark:
		n.do(ruleset.SetMark{Value: xor, Mask: ^mask})
	case o.property == propertyConnMark && xor == 0:
		n.do(ruleset.RestoreMark{Masks: ruleset.Masks{SpareConnection: ^mask}})
	default:
		n.doUnknown("meta mark set")
	}
}

func (n *nativeRule) setConnection(key uint32, o operand) {
	if key != unix.NFT_CT_MARK {
		return
	}
	mask, xor := o.bits()
	switch {
	case o.property == propertyConstant:
		n.do(ruleset.SetMark{Connection: true, Value: native(o.value), Mask: math.MaxUint32})
	case o.property == propertyConnMark:
		n.do(ruleset.SetMark{Connection: true, Value: xor, Mask: ^mask})
	case o.property == propertyMark && xor == 0:
		n.do(ruleset.SaveMark{Masks: ruleset.Masks{SparePacket: ^mask}})
	default:
		n.doUnknown("ct mark set")
	}
}

// bits are the mask and the value that is xor-ed in, of an operand of a mark.
func (o operand) bits() (mask, xor uint32) {
	if o.mask == nil {
		return math.MaxUint32, 0
	}
	return native(o.mask), native(o.xor)
}

// lookup looks a property up in a set, or in a map of verdicts.
func (n *nativeRule) lookup(attrs map[uint16][]byte) error {
	o := n.registers[slot(attrs[unix.NFTA_LOOKUP_SREG])]
	set := text(attrs[unix.NFTA_LOOKUP_SET])
	if attrs[unix.NFTA_LOOKUP_DREG] == nil {
		if o.property == propertyUnknown {
			n.unknown("set")
			return nil
		}
		elements, err := n.reader.elements(set)
		n.within(o, elements, bigEndian(attrs[lookupFlags])&lookupFlagInverse != 0)
		return err
	}
	if slot(attrs[unix.NFTA_LOOKUP_DREG]) != unix.NFT_REG_VERDICT {
		n.registers[slot(attrs[unix.NFTA_LOOKUP_DREG])] = operand{}
		return nil
	}
	elements, err := n.reader.elements(set)
	if err != nil {
		return err
	}
	n.finish()
	for _, e := range elements[:min(len(elements), maxAlternatives)] {
		one := &nativeRule{reader: n.reader, ways: n.ways}
		one.within(o, []setElement{e}, false)
		verdict := verdictOf(e.verdict)
		if one.never || verdict == nil {
			continue
		}
		one.do(verdict)
		one.finish()
		n.rules = append(n.rules, one.rules...)
	}
	return nil
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
	var any [][]ruleset.Match
	var none []ruleset.Match
	for _, e := range elements {
		matches, holds := n.reader.match(o, e, not)
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
			any = append(any, []ruleset.Match{m})
		}
		none = append(none, matches...)
	}
	if not {
		n.where(none)
		return
	}
	if ports, ok := allPorts(any); ok {
		any = [][]ruleset.Match{{ports}}
	}
	n.where(any...)
}

// allPorts makes one match of several that look at the same port.
func allPorts(any [][]ruleset.Match) (ruleset.Match, bool) {
	var all ruleset.Ports
	var ranges []interception.PortRange
	for i, way := range any {
		p, is := way[0].(ruleset.Ports)
		if !is || i > 0 && p.Source != all.Source {
			return nil, false
		}
		all = p
		ranges = append(ranges, p.Ranges...)
	}
	all.Ranges = interception.NewPortRanges(ranges...)
	return all, len(any) > 0
}

// match says in iptables' terms that a property has a value, or one of a range;
// not negates each. Where there is nothing to say, because all packets of the
// family have it or none has, it returns no match, and which of both.
func (r *nativeReader) match(o operand, e setElement, not bool) (matches []ruleset.Match, holds bool) {
	one := func(m ruleset.Match) ([]ruleset.Match, bool) { return []ruleset.Match{m}, false }
	unknown := []ruleset.Match{opaque("expression")}
	single := e.last == nil || bytes.Equal(e.first, e.last)
	from, to := r.numbers(o, e)
	switch o.property {
	case propertyFamily:
		number := map[ruleset.Family]byte{ruleset.IPv4: unix.NFPROTO_IPV4, ruleset.IPv6: unix.NFPROTO_IPV6}[r.family]
		return nil, bytes.Equal(e.first, []byte{number})
	case propertyEtherType:
		number := map[ruleset.Family]uint32{ruleset.IPv4: unix.ETH_P_IP, ruleset.IPv6: unix.ETH_P_IPV6}[r.family]
		return nil, bigEndian(e.first) == number
	case propertyProtocol:
		if single && o.mask == nil {
			return one(ruleset.Protocol{Name: protocolName(e.first), Not: not})
		}
	case propertySource, propertyDestination:
		prefixes, ok := r.prefixes(o, e)
		if !ok {
			return unknown, false
		}
		for _, p := range prefixes {
			if o.property == propertySource {
				matches = append(matches, ruleset.Source{Prefix: p, Not: not})
			} else {
				matches = append(matches, ruleset.Destination{Prefix: p, Not: not})
			}
		}
		return matches, false
	case propertySourcePort, propertyDestinationPort:
		if o.mask == nil && from <= to {
			return one(ruleset.Ports{
				Source: o.property == propertySourcePort, Not: not,
				Ranges: interception.NewPortRanges(interception.PortRange{First: uint16(from), Last: uint16(to)}),
			})
		}
	case propertyTCPFlags:
		if opening := []byte{tcpFIN | tcpSYN | tcpRST | tcpACK}; bytes.Equal(o.mask, opening) && bytes.Equal(e.first, []byte{tcpSYN}) {
			return one(ruleset.SYN{Not: not})
		}
	case propertyInInterface, propertyOutInterface, propertyInIndex, propertyOutIndex:
		name := interfaceName(e.first)
		if o.property == propertyInIndex || o.property == propertyOutIndex {
			name = r.links[native(e.first)]
		}
		if !single || o.mask != nil || name == "" {
			return unknown, false
		}
		if o.property == propertyInInterface || o.property == propertyInIndex {
			return one(ruleset.InInterface{Name: name, Not: not})
		}
		return one(ruleset.OutInterface{Name: name, Not: not})
	case propertyUID, propertyGID:
		if o.mask == nil && from <= to {
			return one(ruleset.Owner{Group: o.property == propertyGID, First: from, Last: to, Not: not})
		}
	case propertyMark, propertyConnMark:
		if mask, xor := o.bits(); single && xor == 0 {
			return one(ruleset.Mark{Connection: o.property == propertyConnMark, Value: from, Mask: mask, Not: not})
		}
	case propertyState:
		// A state is a bit: "ct state new" is that its bit is not 0.
		if o.mask != nil && single && from == 0 {
			return one(ruleset.Conntrack{States: statesOf(native(o.mask)), Not: !not})
		}
		if o.mask == nil && single {
			return one(ruleset.Conntrack{States: statesOf(from), Not: not})
		}
	}
	return unknown, false
}

// Flags of TCP.
const (
	tcpFIN = 1 << iota
	tcpSYN
	tcpRST
	_
	tcpACK
)

// numbers are the ends of a range of a property that is a number.
func (r *nativeReader) numbers(o operand, e setElement) (from, to uint32) {
	last := e.last
	if last == nil {
		last = e.first
	}
	switch o.property {
	case propertySourcePort, propertyDestinationPort:
		return bigEndian(e.first), bigEndian(last)
	}
	if o.network {
		return bigEndian(e.first), bigEndian(last)
	}
	return native(e.first), native(last)
}

func protocolName(number []byte) string {
	switch {
	case bytes.Equal(number, []byte{unix.IPPROTO_TCP}):
		return "tcp"
	case bytes.Equal(number, []byte{unix.IPPROTO_UDP}):
		return "udp"
	}
	return fmt.Sprint(bigEndian(number))
}

// interfaceName reads a name; one that is not ended by a zero stands for all
// that begin so.
func interfaceName(value []byte) string {
	name := strings.TrimRight(string(value), "\x00")
	if len(name) == len(value) {
		name += "+"
	}
	return name
}

// statesOf reads conntrack's bits of states.
func statesOf(bits uint32) []ruleset.State {
	var states []ruleset.State
	for bit, s := range map[uint32]ruleset.State{
		1: ruleset.Invalid, 2: ruleset.Established, 4: ruleset.Related, 8: ruleset.New, 64: ruleset.Untracked,
	} {
		if bits&bit != 0 {
			states = append(states, s)
		}
	}
	slices.Sort(states)
	return states
}

// maxPrefixes bounds the prefixes that one range of addresses becomes.
const maxPrefixes = 32

// prefixes reads an address, the first bytes of one, one with a mask, or a
// range.
func (r *nativeReader) prefixes(o operand, e setElement) ([]netip.Prefix, bool) {
	size := map[ruleset.Family]int{ruleset.IPv4: 4, ruleset.IPv6: 16}[r.family]
	if len(e.first) > size {
		return nil, false
	}
	full := make([]byte, size)
	copy(full, e.first)
	first, _ := netip.AddrFromSlice(full)
	bits := len(e.first) * 8
	if o.mask != nil {
		ones := 0
		for ones < len(o.mask)*8 && o.mask[ones/8]&(0x80>>(ones%8)) != 0 {
			ones++
		}
		for i := ones; i < len(o.mask)*8; i++ {
			if o.mask[i/8]&(0x80>>(i%8)) != 0 {
				return nil, false
			}
		}
		bits = ones
	}
	if e.last == nil || bytes.Equal(e.first, e.last) {
		return []netip.Prefix{netip.PrefixFrom(first, bits).Masked()}, true
	}
	last, ok := netip.AddrFromSlice(e.last)
	if !ok || len(e.first) != size || o.mask != nil {
		return nil, false
	}
	return between(first, last)
}

// between covers a range of addresses with prefixes.
func between(first, last netip.Addr) (prefixes []netip.Prefix, ok bool) {
	for first.IsValid() && first.Compare(last) <= 0 {
		bits := first.BitLen()
		for bits > 0 {
			wider := netip.PrefixFrom(first, bits-1).Masked()
			if wider.Addr() != first || lastAddress(wider).Compare(last) > 0 {
				break
			}
			bits--
		}
		p := netip.PrefixFrom(first, bits)
		if prefixes = append(prefixes, p); len(prefixes) > maxPrefixes {
			return nil, false
		}
		first = lastAddress(p).Next()
	}
	return prefixes, len(prefixes) > 0
}

func lastAddress(p netip.Prefix) netip.Addr {
	value := p.Addr().AsSlice()
	for i := p.Bits(); i < len(value)*8; i++ {
		value[i/8] |= 0x80 >> (i % 8)
	}
	addr, _ := netip.AddrFromSlice(value)
	return addr
}
