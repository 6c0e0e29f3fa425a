package kernel

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

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
				b.number(unix.NFTA_HOOK_HOOKNUM, uint32(slices.Index(nativeHooks, c.Hook.Name)))
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
		if after := nft.LastAddress(p).Next(); after.IsValid() {
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
