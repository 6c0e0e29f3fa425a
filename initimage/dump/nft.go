package dump

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// listing is what nft -j list ruleset prints: tables, in their order.
type listing struct {
	tables []*nftTable
	byName map[string]*nftTable // by family and name
	budget int                  // elements of named sets that may still be read, once for each rule that names the set
}

// maxElements bounds the time that rules of a stranger can take that all name one
// long set.
const maxElements = 1 << 20

// nftTable is one table of nf_tables.
type nftTable struct {
	of           *listing
	family, name string
	asleep       bool // dormant: the kernel does not call its chains
	chains       []*nftChain
	byName       map[string]*nftChain
	sets         map[string][]any // elements
}

type nftChain struct {
	name   string
	base   *ruleset.Base // nil for one that the kernel does not call
	policy string
	rules  []nftRule
}

type nftRule struct {
	comment    string
	statements []any
}

// entry is one object of the listing. Each kind has some of the fields.
type entry struct {
	Family, Table, Name, Chain string
	Type, Hook, Policy         string
	Priority                   int `json:"prio"`
	Flags                      any
	Comment                    string
	Expr, Elem                 []any
}

// parseListing reads the objects of a listing.
func parseListing(objects []map[string]json.RawMessage) (*listing, error) {
	all := &listing{byName: map[string]*nftTable{}, budget: maxElements}
	for i, object := range objects {
		for kind, text := range object {
			if !slices.Contains([]string{"table", "chain", "rule", "set", "map", "element"}, kind) {
				continue
			}
			var e entry
			err := json.Unmarshal(text, &e)
			if err == nil {
				err = all.add(kind, e)
			}
			if err != nil {
				return nil, fmt.Errorf("object %d of nft's listing, a %s: %w", i+1, kind, err)
			}
		}
	}
	return all, nil
}

func (l *listing) add(kind string, e entry) error {
	if kind == "table" {
		table := &nftTable{of: l, family: e.Family, name: e.Name, byName: map[string]*nftChain{}, sets: map[string][]any{}}
		for _, flag := range words(e.Flags) {
			table.asleep = table.asleep || flag != "owner" && flag != "persist"
		}
		if l.byName[e.Family+" "+e.Name] != nil {
			return fmt.Errorf("table %s %s is listed twice", e.Family, e.Name)
		}
		l.byName[e.Family+" "+e.Name] = table
		l.tables = append(l.tables, table)
		return nil
	}
	table := l.byName[e.Family+" "+e.Table]
	if table == nil {
		return fmt.Errorf("there is no table %s %s before it", e.Family, e.Table)
	}
	switch kind {
	case "chain":
		if table.byName[e.Name] != nil {
			return fmt.Errorf("chain %s is listed twice", e.Name)
		}
		chain := &nftChain{name: e.Name}
		if e.Hook != "" {
			chain.base = nft.Hook{Type: e.Type, Name: e.Hook, Priority: e.Priority}.Base()
		}
		if e.Policy == "drop" {
			chain.policy = string(ruleset.Drop)
		}
		table.byName[e.Name] = chain
		table.chains = append(table.chains, chain)
	case "rule":
		chain := table.byName[e.Chain]
		if chain == nil {
			return fmt.Errorf("there is no chain %s before it", e.Chain)
		}
		chain.rules = append(chain.rules, nftRule{comment: e.Comment, statements: e.Expr})
	default:
		table.sets[e.Name] = append(table.sets[e.Name], e.Elem...)
	}
	return nil
}

// words reads one word or a list of them.
func words(value any) []string {
	switch value := value.(type) {
	case string:
		return []string{value}
	case []any:
		var all []string
		for _, v := range value {
			all = append(all, words(v)...)
		}
		return all
	}
	return nil
}

var nftFamilies = map[ruleset.Family]string{ruleset.IPv4: "ip", ruleset.IPv6: "ip6"}

// sets returns the rules that a packet of a family meets: Shunt's, if it has a table
// there, and those of all other tables but the ones that iptables printed.
func (l *listing) sets(family ruleset.Family, printed map[string]bool) (own *ruleset.RuleSet, others ruleset.RuleSet) {
	others = ruleset.RuleSet{Family: family, Party: "nftables"}
	for _, kind := range []string{nftFamilies[family], "inet", "netdev"} {
		for _, table := range l.tables {
			switch {
			case table.family != kind:
			case kind == nftFamilies[family] && table.name == nft.TableName:
				set := nft.FromTable(family, table.translate(family, true), table.asleep)
				own = &set
			case kind == nftFamilies[family] && printed[table.name], table.asleep:
			default:
				others.Tables = append(others.Tables, table.translate(family, false))
			}
		}
	}
	return own, others
}

// translate returns the table as packets of one family meet it, in iptables' terms.
func (t *nftTable) translate(family ruleset.Family, own bool) ruleset.Table {
	table := ruleset.Table{Name: t.family + " " + t.name}
	translator := nft.Translator{Family: family, Own: own}
	for _, c := range t.chains {
		chain := ruleset.Chain{Name: c.name, Base: c.base, Policy: c.policy}
		for _, r := range c.rules {
			reader := ruleReader{RuleMaker: translator.Rule(), family: family, own: own, table: t}
			for _, statement := range r.statements {
				if reader.Never {
					break
				}
				reader.statement(statement)
			}
			rules := reader.Rules()
			for i := range rules {
				if own {
					rules[i].Comment = r.comment
				}
			}
			chain.Rules = append(chain.Rules, rules...)
		}
		table.Chains = append(table.Chains, chain)
	}
	return table
}

// named returns the elements of a named set.
func (t *nftTable) named(reference string) ([]any, bool) {
	elements := t.sets[strings.TrimPrefix(reference, "@")]
	t.of.budget -= len(elements)
	return elements, t.of.budget >= 0
}
