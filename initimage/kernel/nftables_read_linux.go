package kernel

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// ownTables returns Shunt's tables by their families.
func ownTables() (map[ruleset.Family]nativeTable, error) {
	tables, err := listTables()
	if err != nil {
		return nil, err
	}
	own := map[ruleset.Family]nativeTable{}
	for _, t := range tables {
		for _, family := range ruleset.Families {
			if t.kind == nftFamily(family) && t.name == nft.TableName {
				own[family] = t
			}
		}
	}
	return own, nil
}

// readTable reads Shunt's table of a family back, as the rules that it was compiled
// from: what nft.Normal gives. What is not as Compile makes it becomes something
// that no rule set has. Without a table there are no rules.
func readTable(family ruleset.Family) (ruleset.RuleSet, error) {
	nothing := ruleset.RuleSet{Family: family}
	tables, err := ownTables()
	own, there := tables[family]
	if err != nil || !there {
		return nothing, err
	}
	chains, err := listChains(nftFamily(family))
	if err != nil {
		return nothing, fmt.Errorf("listing the chains: %w", err)
	}
	r := nativeReader{
		family: family, kind: nftFamily(family), table: nft.TableName, sets: map[string][]setElement{}, own: true,
	}
	table, err := r.read(chains)
	if err != nil {
		return nothing, fmt.Errorf("table %s: %w", nft.TableName, err)
	}
	return fromTable(family, table, own.dormant), nil
}

// fromTable gives chains back to the tables of iptables that they stand for.
func fromTable(family ruleset.Family, table ruleset.Table, asleep bool) ruleset.RuleSet {
	rs := ruleset.RuleSet{Family: family}
	for _, c := range table.Chains {
		name, chain, _ := strings.Cut(c.Name, "_")
		if wanted := baseOf(name, chain); asleep || !reflect.DeepEqual(c.Base, wanted) {
			chain += " (elsewhere)" // the kernel calls it at another place, or not at all
		}
		i := slices.IndexFunc(rs.Tables, func(t ruleset.Table) bool { return t.Name == name })
		if i < 0 {
			i = len(rs.Tables)
			rs.Tables = append(rs.Tables, ruleset.Table{Name: name})
		}
		rs.Tables[i].Chains = append(rs.Tables[i].Chains, ruleset.Chain{
			Name: chain, Policy: c.Policy, Base: c.Base, Rules: fromRules(name, c.Rules),
		})
	}
	rs.Canonical()
	return rs
}

// baseOf returns where the kernel has to call a chain; nil for one that it does not
// call.
func baseOf(table, chain string) *ruleset.Base {
	hook, known := nft.HookOf(table, chain)
	if !known {
		return nil
	}
	return &ruleset.Base{
		Hook: chain, Priority: int(hook.Priority), NAT: hook.Type == "nat", Route: hook.Type == "route",
	}
}

// fromRules turns the rules of a chain into those that they were compiled from.
func fromRules(table string, rules []ruleset.Rule) []ruleset.Rule {
	var all []ruleset.Rule
	for i := 0; i < len(rules); i++ {
		r := rules[i]
		r.Matches = nft.WithProtocol(r.Matches)
		switch t := r.Target.(type) {
		case ruleset.Jump:
			t.Chain = strings.TrimPrefix(t.Chain, nft.ChainName(table, ""))
			r.Target = t
		case ruleset.Verdict:
			if t == ruleset.Drop && table == "nat" {
				r.Target = ruleset.Nowhere{}
			}
		case ruleset.TProxy:
			if i+1 < len(rules) && dropsTheRest(r, rules[i+1]) {
				i++
			} else {
				r.Target = ruleset.OpaqueTarget{Args: []string{"-j", "nft:tproxy without a drop behind it"}}
			}
		}
		all = append(all, r)
	}
	return all
}

// dropsTheRest reports whether a rule drops what the rule before it, a tproxy, did
// not give to anybody.
func dropsTheRest(proxied, next ruleset.Rule) bool {
	next.Matches = nft.WithProtocol(next.Matches)
	return next.Target == ruleset.Drop && next.Comment == nft.Nobody && reflect.DeepEqual(proxied.Matches, next.Matches)
}
