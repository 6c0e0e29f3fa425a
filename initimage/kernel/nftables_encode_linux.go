package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// encoder makes expressions of a rule, which use register 1.
type encoder struct {
	family ruleset.Family
	exprs  []expr.Any
}

func (e *encoder) add(all ...expr.Any) { e.exprs = append(e.exprs, all...) }

func (e *encoder) rule(r nft.Rule) {
	for _, m := range r.Matches {
		e.match(m)
	}
	if r.Set != nil {
		if r.Set.Ports != nil {
			e.add(loadPort(r.Set.Source))
		} else {
			e.add(e.loadAddress(r.Set.Source, 0))
		}
		e.add(&expr.Lookup{SourceRegister: 1, SetName: r.Set.Name})
	}
	e.add(&expr.Counter{})
	e.target(r.Target)
}

func loadPort(source bool) expr.Any {
	p := &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
	if source {
		p.Offset = 0
	}
	return p
}

// loadAddress loads the address, or its first bytes.
func (e *encoder) loadAddress(source bool, size uint32) expr.Any {
	p := &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}
	switch {
	case e.family == ruleset.IPv6 && source:
		p.Offset, p.Len = 8, 16
	case e.family == ruleset.IPv6:
		p.Offset, p.Len = 24, 16
	case source:
		p.Offset = 12
	}
	if size > 0 {
		p.Len = size
	}
	return p
}

func (e *encoder) address(source bool, prefix netip.Prefix, negated bool) {
	addr := prefix.Masked().Addr().AsSlice()
	bytes := prefix.Bits() / 8
	if prefix.Bits()%8 == 0 && bytes > 0 {
		e.add(e.loadAddress(source, uint32(bytes)), equal(addr[:bytes], negated))
		return
	}
	mask := make([]byte, len(addr))
	for i := range prefix.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	e.add(e.loadAddress(source, 0),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(addr)), Mask: mask, Xor: make([]byte, len(addr))},
		equal(addr, negated))
}

func equal(value []byte, negated bool) expr.Any {
	op := expr.CmpOpEq
	if negated {
		op = expr.CmpOpNeq
	}
	return &expr.Cmp{Op: op, Register: 1, Data: value}
}

func masked(mask uint32) expr.Any {
	return &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: nativeBytes(mask), Xor: nativeBytes(0)}
}

func (e *encoder) match(m ruleset.Match) {
	switch m := m.(type) {
	case ruleset.Source:
		e.address(true, m.Prefix, m.Not)
	case ruleset.Destination:
		e.address(false, m.Prefix, m.Not)
	case ruleset.InInterface:
		e.add(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, equal(interfaceBytes(m.Name), m.Not))
	case ruleset.OutInterface:
		e.add(&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, equal(interfaceBytes(m.Name), m.Not))
	case ruleset.Protocol:
		e.add(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{protocolNumbers[m.Name]}, m.Not))
	case ruleset.Ports:
		e.add(loadPort(m.Source))
		e.ports(m.Ranges[0], m.Not)
	case ruleset.SYN:
		e.add(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{nft.OpeningFlags}, Xor: []byte{0}},
			equal([]byte{nft.FlagSYN}, m.Not))
	case ruleset.Owner:
		e.owner(m)
	case ruleset.Mark:
		if m.Connection {
			e.add(&expr.Ct{Key: expr.CtKeyMARK, Register: 1})
		} else {
			e.add(&expr.Meta{Key: expr.MetaKeyMARK, Register: 1})
		}
		e.bits(m.Value, m.Mask, m.Not)
	case ruleset.SocketMark:
		e.add(&expr.Socket{Key: expr.SocketKeyMark, Register: 1})
		e.bits(m.Value, m.Mask, false)
	case ruleset.Conntrack:
		var bits uint32
		for _, s := range m.States {
			bits |= stateBits[s]
		}
		e.add(&expr.Ct{Key: expr.CtKeySTATE, Register: 1}, masked(bits), equal(nativeBytes(0), !m.Not))
	case ruleset.AddressType:
		e.add(&expr.Fib{Register: 1, ResultADDRTYPE: true, FlagSADDR: !m.Destination, FlagDADDR: m.Destination},
			equal(nativeBytes(unix.RTN_LOCAL), m.Not))
	default:
		panic(fmt.Sprintf("nft.Compile let %T pass", m))
	}
}

// bits compares those of a mark that are in a mask.
func (e *encoder) bits(value, mask uint32, negated bool) {
	if mask != 1<<32-1 {
		e.add(masked(mask))
	}
	e.add(equal(nativeBytes(value), negated))
}

// owner compares numbers of this machine's byte order; a range, which the kernel
// compares byte by byte, in network byte order.
func (e *encoder) owner(m ruleset.Owner) {
	key := expr.MetaKeySKUID
	if m.Group {
		key = expr.MetaKeySKGID
	}
	e.add(&expr.Meta{Key: key, Register: 1})
	if m.First == m.Last {
		e.add(equal(nativeBytes(m.First), m.Not))
		return
	}
	e.add(&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
		inRange(binary.BigEndian.AppendUint32(nil, m.First), binary.BigEndian.AppendUint32(nil, m.Last), m.Not))
}

func (e *encoder) ports(r interception.PortRange, negated bool) {
	if r.First == r.Last {
		e.add(equal(portBytes(r.First), negated))
		return
	}
	e.add(inRange(portBytes(r.First), portBytes(r.Last), negated))
}

func inRange(first, last []byte, negated bool) expr.Any {
	op := expr.CmpOpEq
	if negated {
		op = expr.CmpOpNeq
	}
	return &expr.Range{Op: op, Register: 1, FromData: first, ToData: last}
}

var protocolNumbers = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}

var stateBits = map[ruleset.State]uint32{
	ruleset.Invalid: 1, ruleset.Established: 2, ruleset.Related: 4, ruleset.New: 8, ruleset.Untracked: 64,
}

// interfaceBytes is a name as the kernel compares it: with zeros behind it, or for
// all names that begin so, without.
func interfaceBytes(name string) []byte {
	if stem, many := cutPlus(name); many {
		return []byte(stem)
	}
	value := make([]byte, unix.IFNAMSIZ)
	copy(value, name)
	return value
}

func cutPlus(name string) (string, bool) {
	if n := len(name); n > 0 && name[n-1] == '+' {
		return name[:n-1], true
	}
	return name, false
}

func (e *encoder) target(t ruleset.Target) {
	constant := func(value []byte) expr.Any { return &expr.Immediate{Register: 1, Data: value} }
	verdict := func(kind expr.VerdictKind, chain string) { e.add(&expr.Verdict{Kind: kind, Chain: chain}) }
	switch t := t.(type) {
	case ruleset.Verdict:
		verdict(map[ruleset.Verdict]expr.VerdictKind{
			ruleset.Accept: expr.VerdictAccept, ruleset.Drop: expr.VerdictDrop, ruleset.Return: expr.VerdictReturn,
		}[t], "")
	case ruleset.Jump:
		if t.Goto {
			verdict(expr.VerdictGoto, t.Chain)
		} else {
			verdict(expr.VerdictJump, t.Chain)
		}
	case ruleset.Redirect:
		e.add(constant(portBytes(t.Port)), &expr.Redir{RegisterProtoMin: 1, Flags: unix.NF_NAT_RANGE_PROTO_SPECIFIED})
	case ruleset.Nowhere:
		verdict(expr.VerdictDrop, "")
	case ruleset.TProxy:
		if t.Mask != 0 {
			e.setMark(false, t.Mark, t.Mask)
		}
		kind := byte(nftFamily(e.family))
		e.add(constant(portBytes(t.Port)), &expr.TProxy{Family: kind, TableFamily: kind, RegPort: 1})
		verdict(expr.VerdictAccept, "")
	case ruleset.SetMark:
		e.setMark(t.Connection, t.Value, t.Mask)
	case ruleset.SaveMark:
		e.add(&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, &expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true})
	case ruleset.RestoreMark:
		e.add(&expr.Ct{Key: expr.CtKeyMARK, Register: 1}, &expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true})
	case ruleset.ConntrackZone:
		e.add(constant(binary.NativeEndian.AppendUint16(nil, t.Zone)), &expr.Ct{Key: expr.CtKeyZONE, Register: 1, SourceRegister: true})
	case ruleset.Reject:
		code := uint8(3) // ICMP_PORT_UNREACH
		if e.family == ruleset.IPv6 {
			code = 4 // ICMPV6_PORT_UNREACH
		}
		e.add(&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: code})
	default:
		panic(fmt.Sprintf("nft.Compile let %T pass", t))
	}
}

func (e *encoder) setMark(connection bool, value, mask uint32) {
	var load, store expr.Any = &expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true}
	if connection {
		load, store = &expr.Ct{Key: expr.CtKeyMARK, Register: 1}, &expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true}
	}
	if mask == 1<<32-1 {
		e.add(&expr.Immediate{Register: 1, Data: nativeBytes(value)}, store)
		return
	}
	e.add(load, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: nativeBytes(^mask), Xor: nativeBytes(value)}, store)
}
