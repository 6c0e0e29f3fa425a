//go:build linux

package rules

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/test/netns"
)

// TestVerifyFindsEveryNativeMutant changes the native table one thing at a time, in every way, and
// gives it to nft(8). That also shows that verification reads what nft(8) writes: between the
// mutants it must find nothing.
func TestVerifyFindsEveryNativeMutant(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy", "ip", "nft")
	t.Parallel()
	bin := buildShuntInit(t)
	for _, text := range mutatedArguments {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			m := newMutation(t, bin, interception.BackendNFTables, text)
			for _, family := range ruleset.Families {
				built := ruleset.Build(m.spec, family)
				m.try(t, family, m.ofTable(t, built))
				m.try(t, family, ofRouting(built))
				m.try(t, family, m.ofOtherBackend(family))
			}
			t.Logf("%d mutants, %d found", m.mutants, m.found)
			if m.mutants == 0 || m.found != m.mutants {
				t.Errorf("%d of %d mutants were not found", m.mutants-m.found, m.mutants)
			}
		})
	}
}

// ofTable returns the mutants of a native table. Each is the text of another table.
func (m *mutation) ofTable(t *testing.T, built ruleset.RuleSet) []mutant {
	t.Helper()
	whole, err := nft.Compile(built)
	if err != nil {
		t.Fatal(err)
	}
	load := func(text string) []string { return []string{"nft -f - <<'END'\n" + text + "END"} }
	var mutants []mutant
	add := func(name string, change func(table *nft.Table)) {
		changed, _ := nft.Compile(built)
		change(&changed)
		mutants = append(mutants, mutant{name, load(changed.String()), load(whole.String())})
	}
	for n, c := range whole.Chains {
		for i, r := range c.Rules {
			where := fmt.Sprintf("%s %d (%s) ", c.Name, i+1, r.Comment)
			rules := func(table *nft.Table) *[]nft.Rule { return &table.Chains[n].Rules }
			add(where+"deleted", func(table *nft.Table) { *rules(table) = slices.Delete(*rules(table), i, i+1) })
			add("accept before "+where, func(table *nft.Table) {
				*rules(table) = slices.Insert(*rules(table), i, nft.Rule{Target: ruleset.Accept})
			})
			add(where+"twice", func(table *nft.Table) { *rules(table) = slices.Insert(*rules(table), i, r) })
			if kept := protocolOf(r); r.Set != nil || len(kept) < len(r.Matches) {
				add(where+"without its conditions", func(table *nft.Table) {
					(*rules(table))[i].Matches, (*rules(table))[i].Set = kept, nil
				})
			}
			if i+1 < len(c.Rules) {
				add(where+"and the next swapped", func(table *nft.Table) {
					(*rules(table))[i], (*rules(table))[i+1] = (*rules(table))[i+1], (*rules(table))[i]
				})
			}
		}
		if c.Hook != nil {
			add(c.Name+" called later", func(table *nft.Table) { table.Chains[n].Hook.Priority += 500 })
			add(c.Name+" called by nobody", func(table *nft.Table) { table.Chains[n].Hook = nil })
			text := strings.Replace(whole.String(), fmt.Sprintf("hook %s priority %d; policy accept", c.Hook.Name, c.Hook.Priority),
				fmt.Sprintf("hook %s priority %d; policy drop", c.Hook.Name, c.Hook.Priority), 1)
			mutants = append(mutants, mutant{c.Name + " with a policy that drops", load(text), load(whole.String())})
		}
	}
	for n, s := range whole.Sets {
		add("the set "+s.Name+" without its last element", func(table *nft.Table) {
			set := &table.Sets[n]
			set.Prefixes, set.Ports = set.Prefixes[:max(0, len(set.Prefixes)-1)], set.Ports[:max(0, len(set.Ports)-1)]
			if len(set.Ports) == 0 && s.Ports != nil || len(set.Prefixes) == 0 && s.Prefixes != nil {
				t.Fatalf("the set %s has one element", s.Name)
			}
			if s.Ports == nil {
				set.Ports = nil
			}
		})
	}
	dormant := strings.Replace(whole.String(), "shunt {\n", "shunt {\n\tflags dormant;\n", 1)
	return append(mutants,
		mutant{"the table dormant", load(dormant), load(whole.String())},
		mutant{"the table deleted", []string{"nft delete table " + strings.Fields(whole.String())[1] + " shunt"}, load(whole.String())})
}

// protocolOf returns the match of a rule's protocol, without which nft(8) takes no port.
func protocolOf(r nft.Rule) []ruleset.Match {
	return slices.DeleteFunc(slices.Clone(r.Matches), func(m ruleset.Match) bool {
		_, is := m.(ruleset.Protocol)
		return !is
	})
}
