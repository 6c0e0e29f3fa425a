package nft

import (
	"reflect"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// FromTable gives the chains of Shunt's table back to the tables of iptables that they
// stand for. A table that is asleep is not called.
func FromTable(family ruleset.Family, table ruleset.Table, asleep bool) ruleset.RuleSet {
	rs := ruleset.RuleSet{Family: family}
	places := map[string]int{}
	for _, c := range table.Chains {
		name, chain, _ := strings.Cut(c.Name, "_")
		var wanted *ruleset.Base
		if hook, known := HookOf(name, chain); known {
			wanted = hook.Base()
		}
		if asleep || !reflect.DeepEqual(c.Base, wanted) {
			chain += " (elsewhere)" // the kernel calls it at another place, or not at all
		}
		i, known := places[name]
		if !known {
			i = len(rs.Tables)
			places[name] = i
			rs.Tables = append(rs.Tables, ruleset.Table{Name: name})
		}
		rs.Tables[i].Chains = append(rs.Tables[i].Chains, ruleset.Chain{
			Name: chain, Policy: c.Policy, Base: c.Base, Rules: fromRules(name, c.Rules),
		})
	}
	rs.Canonical()
	return rs
}

// fromRules turns the rules of a chain into those that they were compiled from.
func fromRules(table string, rules []ruleset.Rule) []ruleset.Rule {
	var all []ruleset.Rule
	for i := 0; i < len(rules); i++ {
		r := rules[i]
		r.Matches = WithProtocol(r.Matches)
		switch t := r.Target.(type) {
		case ruleset.Jump:
			t.Chain = strings.TrimPrefix(t.Chain, ChainName(table, ""))
			r.Target = t
		case ruleset.Verdict:
			if t == ruleset.Drop && table == "nat" {
				r.Target = ruleset.Nowhere{}
			}
		case ruleset.Sequence:
			r.Target = withMark(t)
		}
		if _, is := r.Target.(ruleset.TProxy); is {
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

// withMark returns the tproxy that a mark and a tproxy were compiled from; what is
// anything else it returns as it is.
func withMark(all ruleset.Sequence) ruleset.Target {
	if len(all) == 2 {
		mark, sets := all[0].(ruleset.SetMark)
		proxied, is := all[1].(ruleset.TProxy)
		if sets && is && !mark.Connection && mark.Mask == allBits {
			proxied.Mark, proxied.Mask = mark.Value, mark.Mask
			return proxied
		}
	}
	return all
}

// dropsTheRest reports whether a rule drops what the rule before it, a tproxy, did
// not give to anybody.
func dropsTheRest(proxied, next ruleset.Rule) bool {
	next.Matches = WithProtocol(next.Matches)
	wanted := nobody(Rule{Matches: proxied.Matches, Target: proxied.Target})
	return next.Target == ruleset.Drop && next.Comment == Nobody && sameMatches(wanted.Matches, next.Matches)
}

// sameMatches reports whether two rules have the same conditions, in whichever order:
// nft(8) lists a protocol that another condition needs in front of that one.
func sameMatches(a, b []ruleset.Match) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(m ruleset.Match) bool {
		return !slices.ContainsFunc(b, func(other ruleset.Match) bool { return reflect.DeepEqual(m, other) })
	})
}
