package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

func (n *nativeRule) meta(attrs attributeMap) error {
	key := nft.BigEndian(attrs[unix.NFTA_META_KEY])
	if attrs[unix.NFTA_META_SREG] != nil {
		n.setMeta(key, n.loaded(attrs[unix.NFTA_META_SREG]))
		return nil
	}
	loaded, known := metaOperands[key]
	if !known {
		loaded = nft.Operand{}
	}
	n.load(attrs[unix.NFTA_META_DREG], loaded)
	return nil
}

func (n *nativeRule) connection(attrs attributeMap) error {
	key := nft.BigEndian(attrs[unix.NFTA_CT_KEY])
	if attrs[unix.NFTA_CT_SREG] != nil {
		n.setConnection(key, n.loaded(attrs[unix.NFTA_CT_SREG]))
		return nil
	}
	loaded := nft.Operand{}
	switch key {
	case unix.NFT_CT_STATE:
		loaded.Property = nft.PropertyState
	case unix.NFT_CT_MARK:
		loaded.Property = nft.PropertyConnMark
	}
	n.load(attrs[unix.NFTA_CT_DREG], loaded)
	return nil
}

// payload loads a part of the packet, or writes one.
func (n *nativeRule) payload(attrs attributeMap) error {
	base, offset := nft.BigEndian(attrs[unix.NFTA_PAYLOAD_BASE]), nft.BigEndian(attrs[unix.NFTA_PAYLOAD_OFFSET])
	size := nft.BigEndian(attrs[unix.NFTA_PAYLOAD_LEN])
	loaded := n.reader.payload(base, offset, size)
	if attrs[unix.NFTA_PAYLOAD_SREG] == nil {
		n.load(attrs[unix.NFTA_PAYLOAD_DREG], loaded)
		return nil
	}
	ports := base == unix.NFT_PAYLOAD_TRANSPORT_HEADER && offset < 4
	if ports || loaded.Property == nft.PropertySource || loaded.Property == nft.PropertyDestination {
		n.AddTarget(nft.UnknownTarget("payload set"))
	}
	return nil
}

// header loads a part of an option. Writing one does not change where the packet
// goes.
func (n *nativeRule) header(attrs attributeMap) error {
	if attrs[unix.NFTA_EXTHDR_SREG] == nil {
		n.load(attrs[unix.NFTA_EXTHDR_DREG], nft.Operand{})
	}
	return nil
}

func (n *nativeRule) byteorder(attrs attributeMap) error {
	loaded := n.loaded(attrs[unix.NFTA_BYTEORDER_SREG])
	loaded.Network = !loaded.Network
	n.load(attrs[unix.NFTA_BYTEORDER_DREG], loaded)
	return nil
}

// operations are the comparisons by their codes.
var operations = map[uint32]nft.Operation{
	unix.NFT_CMP_EQ: nft.Equal, unix.NFT_CMP_NEQ: nft.NotEqual, unix.NFT_CMP_LT: nft.Less, unix.NFT_CMP_LTE: nft.LessOrEqual,
	unix.NFT_CMP_GT: nft.Greater, unix.NFT_CMP_GTE: nft.GreaterOrEqual,
}

func (n *nativeRule) cmp(attrs attributeMap) error {
	value := attributes(attrs[unix.NFTA_CMP_DATA])[unix.NFTA_DATA_VALUE]
	n.AddComparison(n.loaded(attrs[unix.NFTA_CMP_SREG]), operations[nft.BigEndian(attrs[unix.NFTA_CMP_OP])], value)
	return nil
}

func (n *nativeRule) inRange(attrs attributeMap) error {
	between := nft.Element{
		First: attributes(attrs[unix.NFTA_RANGE_FROM_DATA])[unix.NFTA_DATA_VALUE],
		Last:  attributes(attrs[unix.NFTA_RANGE_TO_DATA])[unix.NFTA_DATA_VALUE],
	}
	not := nft.BigEndian(attrs[unix.NFTA_RANGE_OP]) == unix.NFT_RANGE_NEQ
	n.AddMembership(n.loaded(attrs[unix.NFTA_RANGE_SREG]), []nft.Element{between}, not)
	return nil
}

// nat adds the translation of a destination or of a source.
// The kernel leaves packets of the other family alone.
func (n *nativeRule) nat(attrs attributeMap) error {
	if n.ofOther(attrs[unix.NFTA_NAT_FAMILY]) {
		return nil
	}
	if register := attrs[unix.NFTA_NAT_REG_ADDR_MIN]; register != nil && n.loaded(register).Property != nft.PropertyConstant {
		n.AddTarget(nft.UnknownTarget("nat to a map"))
		return nil
	}
	to := n.address(attrs[unix.NFTA_NAT_REG_ADDR_MIN])
	if nft.BigEndian(attrs[unix.NFTA_NAT_TYPE]) == natDestination {
		n.AddTarget(ruleset.DNAT{Address: to, Port: n.port(attrs[unix.NFTA_NAT_REG_PROTO_MIN])})
		return nil
	}
	n.AddTarget(nft.SourceTarget(to))
	return nil
}

// ofOther reports whether a family that an expression is for is not the reader's.
func (n *nativeRule) ofOther(family []byte) bool {
	number := nft.BigEndian(family)
	return number != unix.NFPROTO_UNSPEC && (number == unix.NFPROTO_IPV4) != (n.reader.family == ruleset.IPv4)
}

// tproxy adds the gift of the packet to a socket. For packets of the other family
// the rule ends there.
func (n *nativeRule) tproxy(attrs attributeMap) error {
	if n.ofOther(attrs[tproxyFamily]) {
		n.Never = true
		return nil
	}
	t := ruleset.TProxy{Address: n.address(attrs[tproxyAddress]), Port: n.port(attrs[tproxyPort])}
	if !t.Address.IsValid() {
		t.Address, _ = netip.AddrFromSlice(anywhere(n.reader.family).IP)
	}
	n.AddTarget(t)
	return nil
}

// match adds a match of iptables' own kind.
func (n *nativeRule) match(attrs attributeMap) error {
	if name := text(attrs[matchName]); name != "comment" {
		n.AddOpaque(name)
	}
	return nil
}

// verdicts are the verdicts by their codes.
var verdicts = map[int32]ruleset.Target{0: ruleset.Drop, 1: ruleset.Accept, unix.NFT_RETURN: ruleset.Return}

func (n *nativeRule) immediate(attrs attributeMap) error {
	data := attributes(attrs[unix.NFTA_IMMEDIATE_DATA])
	if verdict := data[unix.NFTA_DATA_VERDICT]; verdict != nil {
		if t := verdictOf(verdict); t != nil {
			n.AddTarget(t)
		}
		return nil
	}
	n.registers[slot(attrs[unix.NFTA_IMMEDIATE_DREG])] = nft.Operand{Property: nft.PropertyConstant, Value: data[unix.NFTA_DATA_VALUE]}
	return nil
}

// verdictOf reads a verdict; nil for the one that continues.
func verdictOf(data []byte) ruleset.Target {
	if data == nil {
		return nil
	}
	attrs := attributes(data)
	chain := text(attrs[unix.NFTA_VERDICT_CHAIN])
	switch code := int32(nft.BigEndian(attrs[unix.NFTA_VERDICT_CODE])); code {
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

func (n *nativeRule) bitwise(attrs attributeMap) error {
	loaded := n.registers[slot(attrs[unix.NFTA_BITWISE_SREG])]
	if loaded.Mask != nil || nft.BigEndian(attrs[bitwiseOperation]) != 0 {
		loaded = nft.Operand{} // a second mask, or a shift
	} else {
		loaded.Mask = attributes(attrs[unix.NFTA_BITWISE_MASK])[unix.NFTA_DATA_VALUE]
		loaded.Xor = attributes(attrs[unix.NFTA_BITWISE_XOR])[unix.NFTA_DATA_VALUE]
	}
	n.registers[slot(attrs[unix.NFTA_BITWISE_DREG])] = loaded
	return nil
}

func (n *nativeRule) port(register []byte) uint16 {
	if value := n.registers[slot(register)].Value; register != nil && len(value) >= 2 {
		return binary.BigEndian.Uint16(value)
	}
	return 0
}

func (n *nativeRule) address(register []byte) netip.Addr {
	if register == nil {
		return netip.Addr{}
	}
	addr, _ := netip.AddrFromSlice(n.registers[slot(register)].Value)
	return addr
}

// setMeta adds a statement that sets a property of the packet. Only the mark
// matters here.
func (n *nativeRule) setMeta(key uint32, loaded nft.Operand) {
	if key == unix.NFT_META_MARK {
		n.SetMark(false, loaded)
	}
}

// fib loads what the routing table says of an address. Its type is understood.
func (n *nativeRule) fib(attrs attributeMap) error {
	loaded := nft.Operand{}
	if nft.BigEndian(attrs[unix.NFTA_FIB_RESULT]) == unix.NFT_FIB_RESULT_ADDRTYPE {
		switch nft.BigEndian(attrs[unix.NFTA_FIB_FLAGS]) {
		case unix.NFTA_FIB_F_SADDR:
			loaded.Property = nft.PropertySourceType
		case unix.NFTA_FIB_F_DADDR:
			loaded.Property = nft.PropertyDestinationType
		}
	}
	n.load(attrs[unix.NFTA_FIB_DREG], loaded)
	return nil
}

// socket loads a property of the socket that awaits the packet. The mark is
// understood in Shunt's table, which only looks for marks that no listener has.
func (n *nativeRule) socket(attrs attributeMap) error {
	loaded := nft.Operand{}
	if n.reader.own && nft.BigEndian(attrs[expr.NFTA_SOCKET_KEY]) == expr.NFT_SOCKET_MARK {
		loaded.Property = nft.PropertySocketMark
	}
	n.load(attrs[expr.NFTA_SOCKET_DREG], loaded)
	return nil
}

// reject reads the answer to the sender.
func (n *nativeRule) reject(attrs attributeMap) ruleset.Target {
	code := attrs[unix.NFTA_REJECT_ICMP_CODE]
	if n.reader.own && nft.BigEndian(attrs[unix.NFTA_REJECT_TYPE]) == unix.NFT_REJECT_ICMP_UNREACH && len(code) == 1 {
		switch {
		case n.reader.family == ruleset.IPv4 && code[0] == 3:
			return ruleset.Reject{With: "icmp-port-unreachable"}
		case n.reader.family == ruleset.IPv6 && code[0] == 4:
			return ruleset.Reject{With: "icmp6-port-unreachable"}
		}
	}
	return ruleset.Reject{}
}

func (n *nativeRule) setConnection(key uint32, loaded nft.Operand) {
	if key == unix.NFT_CT_ZONE && loaded.Property == nft.PropertyConstant && len(loaded.Value) >= 2 {
		n.AddTarget(ruleset.ConntrackZone{Zone: binary.NativeEndian.Uint16(loaded.Value)})
		return
	}
	if key == unix.NFT_CT_MARK {
		n.SetMark(true, loaded)
	}
}

// lookup adds the lookup of a property in a set, or in a verdict map.
func (n *nativeRule) lookup(attrs attributeMap) error {
	loaded := n.registers[slot(attrs[unix.NFTA_LOOKUP_SREG])]
	set := text(attrs[unix.NFTA_LOOKUP_SET])
	if attrs[unix.NFTA_LOOKUP_DREG] == nil {
		if loaded.Property == nft.PropertyUnknown {
			n.AddOpaque("set")
			return nil
		}
		elements, err := n.reader.elements(set)
		n.AddMembership(loaded, elements, nft.BigEndian(attrs[lookupFlags])&lookupFlagInverse != 0)
		return err
	}
	if slot(attrs[unix.NFTA_LOOKUP_DREG]) != unix.NFT_REG_VERDICT {
		n.registers[slot(attrs[unix.NFTA_LOOKUP_DREG])] = nft.Operand{}
		return nil
	}
	elements, err := n.reader.elements(set)
	if err != nil {
		return err
	}
	n.AddVerdicts(loaded, elements)
	return nil
}
