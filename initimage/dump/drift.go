package dump

import (
	"slices"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// Drift says how the rules and routing of Shunt in a pod differ from those that it
// should have, rule by rule. Rules of others are not looked at.
func Drift(pod trace.Pod, spec interception.Spec, families []ruleset.Family) []string {
	var all []string
	for i := range pod.Sides {
		side := &pod.Sides[i]
		held, native := heldBy(side)
		wanted := ruleset.RuleSet{Family: side.Family}
		if slices.Contains(families, side.Family) {
			asked := spec
			if asked.DNS.Redirect && !asked.DNS.All && len(asked.DNS.Servers) == 0 {
				asked.DNS.Servers = serversOf(pod) // shunt-init takes them from the pod's resolv.conf
			}
			wanted = ruleset.Build(asked, side.Family)
		}
		if native {
			wanted = nft.Normal(wanted)
		}
		for _, line := range ruleset.Diff(wanted, held) {
			word := map[byte]string{'-': "missing: ", '+': "not asked for: "}[line[0]]
			all = append(all, side.Family.String()+": "+word+line[2:])
		}
		if side.Routing.Unreachable {
			all = append(all, side.Family.String()+": cut off from outside: a change was cut short; run shunt-init again")
		}
	}
	return all
}

// heldBy returns what of a side is Shunt's, and whether it is in a native table of
// nf_tables.
func heldBy(side *trace.Side) (held ruleset.RuleSet, native bool) {
	held = ruleset.RuleSet{Family: side.Family}
	for _, set := range side.Sets {
		if set.Party != "" {
			continue
		}
		native = slices.ContainsFunc(set.Tables, func(t ruleset.Table) bool {
			return slices.ContainsFunc(t.Chains, func(c ruleset.Chain) bool { return c.Base != nil })
		})
		if held = set; !native {
			held = set.Owned()
		}
	}
	held.Routing = side.Routing
	held.Routing.Unreachable = false
	return held, native
}

// serversOf returns the DNS servers whose queries the rules of a pod capture.
func serversOf(pod trace.Pod) interception.Prefixes {
	var servers interception.Prefixes
	for i := range pod.Sides {
		held, _ := heldBy(&pod.Sides[i])
		chain := held.Chain("nat", ruleset.ChainPrefix+"DNS")
		if chain == nil {
			continue
		}
		for _, rule := range chain.Rules {
			for _, m := range rule.Matches {
				if to, is := m.(ruleset.Destination); is && !to.Not && !slices.Contains(servers, to.Prefix) {
					servers = append(servers, to.Prefix)
				}
			}
		}
	}
	return servers
}
