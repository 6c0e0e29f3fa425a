package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// setElementsAtOnce is how many elements are in one message: a list of them has at
// most 64 KiB, and one of IPv6 takes 28 bytes or, at the end of an interval, 36.
const setElementsAtOnce = 1500

// replaceTables returns the transaction that makes Shunt's tables what is given. It
// deletes those that are there. A table without chains is not made.
func replaceTables(there []ruleset.Family, tables []nft.Table) (*batch, error) {
	b := &batch{}
	for _, family := range there {
		b.add(fmt.Sprintf("deleting the table %s of %s", nft.TableName, family), unix.NFT_MSG_DELTABLE, byte(nftFamily(family)), 0)
		b.text(unix.NFTA_TABLE_NAME, nft.TableName)
	}
	for _, t := range tables {
		if len(t.Chains) == 0 {
			continue
		}
		if err := b.addTable(t); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// addTable adds a table with its sets, chains and rules.
func (b *batch) addTable(t nft.Table) error {
	family := byte(nftFamily(t.Family))
	begin := func(what string, message uint16, flags uint16) {
		b.add(fmt.Sprintf("%s of the %s table %s", what, t.Family, nft.TableName), message, family, unix.NLM_F_CREATE|flags)
	}
	begin("the head", unix.NFT_MSG_NEWTABLE, unix.NLM_F_EXCL)
	b.text(unix.NFTA_TABLE_NAME, nft.TableName)
	for i, s := range t.Sets {
		begin("set "+s.Name, unix.NFT_MSG_NEWSET, 0)
		b.setHead(s, t.Family, uint32(i+1))
		for elements := range slices.Chunk(setElements(s), setElementsAtOnce) {
			begin("elements of set "+s.Name, unix.NFT_MSG_NEWSETELEM, 0)
			b.elements(s.Name, elements)
		}
	}
	for _, c := range t.Chains {
		begin("chain "+c.Name, unix.NFT_MSG_NEWCHAIN, 0)
		b.text(unix.NFTA_CHAIN_TABLE, nft.TableName)
		b.text(unix.NFTA_CHAIN_NAME, c.Name)
		if c.Hook != nil {
			b.nest(unix.NFTA_CHAIN_HOOK, func() {
				b.number(unix.NFTA_HOOK_HOOKNUM, uint32(*nftHooks[c.Hook.Name]))
				b.number(unix.NFTA_HOOK_PRIORITY, uint32(c.Hook.Priority))
			})
			b.text(unix.NFTA_CHAIN_TYPE, c.Hook.Type)
		}
	}
	for _, c := range t.Chains {
		for i, r := range c.Rules {
			begin(fmt.Sprintf("rule %d (%s) of chain %s", i+1, r.Comment, c.Name), unix.NFT_MSG_NEWRULE, unix.NLM_F_APPEND)
			b.text(unix.NFTA_RULE_TABLE, nft.TableName)
			b.text(unix.NFTA_RULE_CHAIN, c.Name)
			e := encoder{family: t.Family}
			e.rule(r)
			if err := b.expressions(family, e.exprs); err != nil {
				return fmt.Errorf("rule %q of chain %s: %w", r.Comment, c.Name, err)
			}
			if r.Comment != "" {
				b.attr(unix.NFTA_RULE_USERDATA, userdata.AppendString(nil, userdata.TypeComment, r.Comment))
			}
		}
	}
	return nil
}

// setHead describes a set. The last attribute tells nft(8) in which byte order it
// can print the values.
func (b *batch) setHead(s nft.Set, family ruleset.Family, id uint32) {
	kind := setKind(s, family)
	b.text(unix.NFTA_SET_TABLE, nft.TableName)
	b.text(unix.NFTA_SET_NAME, s.Name)
	b.number(unix.NFTA_SET_FLAGS, unix.NFT_SET_INTERVAL)
	b.number(unix.NFTA_SET_KEY_TYPE, kind.GetNFTMagic())
	b.number(unix.NFTA_SET_KEY_LEN, kind.Bytes)
	b.number(unix.NFTA_SET_ID, id)
	const bigEndianKeys = 2
	b.attr(unix.NFTA_SET_USERDATA, userdata.AppendUint32(nil, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, bigEndianKeys))
}

func (b *batch) elements(set string, elements []nftables.SetElement) {
	b.text(unix.NFTA_SET_ELEM_LIST_TABLE, nft.TableName)
	b.text(unix.NFTA_SET_ELEM_LIST_SET, set)
	b.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() {
		for _, e := range elements {
			b.nest(unix.NFTA_LIST_ELEM, func() {
				if e.IntervalEnd {
					b.number(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
				}
				b.nest(unix.NFTA_SET_ELEM_KEY, func() { b.attr(unix.NFTA_DATA_VALUE, e.Key) })
			})
		}
	})
}

// expressions adds those of a rule, and records their places.
func (b *batch) expressions(family byte, all []expr.Any) error {
	last := &b.parts[len(b.parts)-1]
	var failed error
	b.nest(unix.NFTA_RULE_EXPRESSIONS, func() {
		for _, e := range all {
			encoded, err := expr.Marshal(family, e)
			if err != nil {
				failed = fmt.Errorf("encoding %T: %w", e, err)
				return
			}
			from := len(b.data) - last.start
			b.attr(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, encoded)
			name := text(attributes(encoded)[unix.NFTA_EXPR_NAME])
			last.expressions = append(last.expressions, expression{name, from, len(b.data) - last.start})
		}
	})
	return failed
}

var nftHooks = map[string]*nftables.ChainHook{
	"prerouting": nftables.ChainHookPrerouting, "input": nftables.ChainHookInput, "output": nftables.ChainHookOutput,
}

func setKind(s nft.Set, family ruleset.Family) nftables.SetDatatype {
	switch {
	case s.Ports != nil:
		return nftables.TypeInetService
	case family == ruleset.IPv6:
		return nftables.TypeIP6Addr
	default:
		return nftables.TypeIPAddr
	}
}

// setElements returns the ends of all intervals: each begins, and ends before
// another value.
func setElements(s nft.Set) []nftables.SetElement {
	var all []nftables.SetElement
	for _, p := range s.Prefixes {
		all = append(all, nftables.SetElement{Key: p.Addr().AsSlice()})
		if after := lastAddress(p).Next(); after.IsValid() {
			all = append(all, nftables.SetElement{Key: after.AsSlice(), IntervalEnd: true})
		}
	}
	for _, r := range s.Ports {
		all = append(all, nftables.SetElement{Key: portBytes(r.First)})
		if r.Last < 65535 {
			all = append(all, nftables.SetElement{Key: portBytes(r.Last + 1), IntervalEnd: true})
		}
	}
	return all
}

func portBytes(port uint16) []byte { return binary.BigEndian.AppendUint16(nil, port) }

func nativeBytes(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

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
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{tcpFIN | tcpSYN | tcpRST | tcpACK}, Xor: []byte{0}},
			equal([]byte{tcpSYN}, m.Not))
	case ruleset.Owner:
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
	case ruleset.Mark:
		if m.Connection {
			e.add(&expr.Ct{Key: expr.CtKeyMARK, Register: 1})
		} else {
			e.add(&expr.Meta{Key: expr.MetaKeyMARK, Register: 1})
		}
		if m.Mask != 1<<32-1 {
			e.add(masked(m.Mask))
		}
		e.add(equal(nativeBytes(m.Value), m.Not))
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
	load, store := expr.Any(&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}), expr.Any(&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true})
	if connection {
		load, store = &expr.Ct{Key: expr.CtKeyMARK, Register: 1}, &expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true}
	}
	if mask == 1<<32-1 {
		e.add(&expr.Immediate{Register: 1, Data: nativeBytes(value)}, store)
		return
	}
	e.add(load, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: nativeBytes(^mask), Xor: nativeBytes(value)}, store)
}
