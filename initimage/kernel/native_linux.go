package kernel

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// nativeRules returns the tables of nf_tables that a packet of a family meets, but
// for those that iptables prints. What iptables has no word for becomes an opaque
// match or target.
//
// The rules are decoded here because google/nftables leaves out expressions that it
// does not know, and a rule without one of its conditions means something else.
func nativeRules(family ruleset.Family, printed []string, links *netlink.Handle) (ruleset.RuleSet, error) {
	result := ruleset.RuleSet{Family: family, Party: "nftables"}
	names, err := linkNames(links)
	if err != nil {
		return result, err
	}
	tables, err := listTables()
	if err != nil {
		return result, err
	}
	for _, kind := range []nftables.TableFamily{nftFamily(family), nftables.TableFamilyINet, nftables.TableFamilyNetdev} {
		if !slices.ContainsFunc(tables, func(t nativeTable) bool { return t.kind == kind }) {
			continue
		}
		chains, err := listChains(kind)
		if err != nil {
			return result, fmt.Errorf("listing the chains: %w", err)
		}
		for _, t := range tables {
			if t.kind != kind || kind == nftFamily(family) && slices.Contains(printed, t.name) || t.dormant {
				continue
			}
			r := nativeReader{family: family, kind: kind, table: t.name, links: names, sets: map[string][]nft.Element{}}
			table, err := r.read(chains)
			if err != nil {
				return result, fmt.Errorf("table %s %s: %w", nativeFamilies[kind], t.name, err)
			}
			result.Tables = append(result.Tables, table)
		}
	}
	return result, nil
}

func linkNames(links *netlink.Handle) (map[uint32]string, error) {
	all, err := links.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing the interfaces: %w", err)
	}
	names := map[uint32]string{}
	for _, l := range all {
		names[uint32(l.Attrs().Index)] = l.Attrs().Name
	}
	return names, nil
}

var nativeFamilies = map[nftables.TableFamily]string{
	nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet", nftables.TableFamilyNetdev: "netdev",
}

// nativeReader reads one table.
type nativeReader struct {
	family ruleset.Family
	kind   nftables.TableFamily
	table  string
	links  map[uint32]string // names of interfaces, by index
	sets   map[string][]nft.Element
	own    bool // Shunt's table: rules keep their comments, and a set of any size is read
}

// read puts together the chains of the table and their rules.
func (r *nativeReader) read(chains []*nftables.Chain) (ruleset.Table, error) {
	table := ruleset.Table{Name: nativeFamilies[r.kind] + " " + r.table}
	for _, c := range chains {
		if c.Table.Name != r.table {
			continue
		}
		chain := ruleset.Chain{Name: c.Name, Base: r.base(c)}
		if c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
			chain.Policy = string(ruleset.Drop)
		}
		table.Chains = append(table.Chains, chain)
	}
	messages, err := r.dump(unix.NFT_MSG_GETRULE, unix.NFTA_RULE_TABLE, "")
	if err != nil {
		return table, fmt.Errorf("listing the rules: %w", err)
	}
	for _, message := range messages {
		attrs := message.attributes()
		name := text(attrs[unix.NFTA_RULE_CHAIN])
		i := slices.IndexFunc(table.Chains, func(c ruleset.Chain) bool { return c.Name == name })
		if i < 0 || text(attrs[unix.NFTA_RULE_TABLE]) != r.table {
			continue
		}
		rules, err := r.rules(list(attrs[unix.NFTA_RULE_EXPRESSIONS]))
		if err != nil {
			return table, fmt.Errorf("chain %s: %w", name, err)
		}
		for i := range rules {
			if r.own {
				rules[i].Comment = commentOf(attrs[unix.NFTA_RULE_USERDATA])
			}
		}
		table.Chains[i].Rules = append(table.Chains[i].Rules, rules...)
	}
	return table, nil
}

// commentOf returns the comment in a rule's user data, a list of types, sizes and
// values. Anybody may have written it.
func commentOf(data []byte) string {
	const kindComment = 0 // NFTNL_UDATA_RULE_COMMENT
	for len(data) >= 2 && len(data) >= 2+int(data[1]) {
		if data[0] == kindComment {
			return text(data[2 : 2+int(data[1])])
		}
		data = data[2+int(data[1]):]
	}
	return ""
}

// nativeHooks are the names of the hooks by their numbers.
var nativeHooks = []string{"prerouting", "input", "forward", "output", "postrouting"}

// base returns where the kernel calls a chain; nil for a chain that it does not
// call.
func (r *nativeReader) base(c *nftables.Chain) *ruleset.Base {
	if c.Hooknum == nil || c.Priority == nil {
		return nil
	}
	hook := nft.Hook{Type: string(c.Type), Name: "ingress", Priority: int(*c.Priority)}
	switch number := int(*c.Hooknum); {
	case r.kind == nftables.TableFamilyNetdev && number == int(*nftables.ChainHookEgress):
		hook.Name = "egress"
	case r.kind != nftables.TableFamilyNetdev && number < len(nativeHooks):
		hook.Name = nativeHooks[number]
	}
	return hook.Base()
}

// dump asks nf_tables for everything of one kind in the table. The name is that of
// a set.
func (r *nativeReader) dump(message int, tableAttribute uint16, name string) ([]answer, error) {
	return askNFTables(message, unix.NLM_F_DUMP, r.kind, func(question *batch) {
		question.text(tableAttribute, r.table)
		if name != "" {
			question.text(unix.NFTA_SET_ELEM_LIST_SET, name)
		}
	})
}

// elements returns what is in a set of the table.
func (r *nativeReader) elements(set string) ([]nft.Element, error) {
	if known, ok := r.sets[set]; ok {
		return known, nil
	}
	messages, err := r.dump(unix.NFT_MSG_GETSETELEM, unix.NFTA_SET_ELEM_LIST_TABLE, set)
	if err != nil {
		return nil, fmt.Errorf("listing the set %s: %w", set, err)
	}
	var bounds []bound
	for _, message := range messages {
		for _, element := range list(message.attributes()[unix.NFTA_SET_ELEM_LIST_ELEMENTS]) {
			attrs := attributes(element)
			b := bound{Element: nft.Element{First: attributes(attrs[unix.NFTA_SET_ELEM_KEY])[unix.NFTA_DATA_VALUE]}}
			b.Last = attributes(attrs[setElementKeyEnd])[unix.NFTA_DATA_VALUE]
			b.Verdict = verdictOf(attributes(attrs[unix.NFTA_SET_ELEM_DATA])[unix.NFTA_DATA_VERDICT])
			b.end = nft.BigEndian(attrs[unix.NFTA_SET_ELEM_FLAGS])&unix.NFT_SET_ELEM_INTERVAL_END != 0
			bounds = append(bounds, b)
		}
	}
	r.sets[set] = intervals(bounds)
	return r.sets[set], nil
}

// bound is an element as the kernel lists it: the first value of an interval or,
// with end, the first value after one.
type bound struct {
	nft.Element
	end bool
}

// intervals puts the bounds of a set together.
func intervals(bounds []bound) []nft.Element {
	slices.SortStableFunc(bounds, func(a, b bound) int {
		if order := bytes.Compare(a.First, b.First); order != 0 || a.end == b.end {
			return order
		}
		if a.end { // an interval may begin where another ends
			return -1
		}
		return 1
	})
	interval := slices.ContainsFunc(bounds, func(b bound) bool { return b.end })
	var all []nft.Element
	for i, b := range bounds {
		if b.end {
			continue
		}
		if interval && b.Last == nil { // it reaches up to the next bound
			b.Last = bytes.Repeat([]byte{0xff}, len(b.First))
			if i+1 < len(bounds) {
				b.Last = nft.Before(bounds[i+1].First)
			}
		}
		all = append(all, b.Element)
	}
	return all
}

// setElementKeyEnd is NFTA_SET_ELEM_KEY_END.
const setElementKeyEnd = 10

func text(value []byte) string { return strings.TrimRight(string(value), "\x00") }
