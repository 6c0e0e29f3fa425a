package rules

import (
	"slices"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// TestEstablishedMeetsOneRule walks each packet of each case as one of an established connection. In
// a native table it may meet one rule at each hook, and no more than mayMeet says elsewhere.
func TestEstablishedMeetsOneRule(t *testing.T) {
	walked, most := 0, map[string]int{}
	for _, test := range corpus(t) {
		if test.Refused() {
			continue
		}
		spec, _, err := test.Spec()
		if err != nil {
			t.Fatal(err)
		}
		if spec.NoConntrack {
			continue // the kernel looks at the mark of the packet's socket, which a walk does not have
		}
		for _, family := range ruleset.Families {
			table, err := nft.Compile(ruleset.Build(spec, family))
			if err != nil {
				t.Fatal(err)
			}
			for _, hook := range []string{"prerouting", "input", "output"} {
				rules, plain := atHook(table, hook), mayMeet(interception.Spec{System: interception.SystemTProxy}, hook, "tcp")
				for _, x := range established(test, family) {
					met, may := ruleset.Trace(rules, Pod, x.Packet).RulesMet, mayMeet(spec, hook, x.Packet.Protocol)
					if walked++; met > may {
						t.Errorf("%s: %s: %d rules at %s, want at most %d", test.Name, x.Text, met, hook, may)
					}
					if spec.System == interception.SystemTProxy && may == plain {
						most[hook] = max(most[hook], met)
					}
				}
			}
		}
	}
	if walked < 1000 || most["prerouting"] != 1 || most["output"] != 2 {
		t.Errorf("%d walks, and TPROXY's met %v rules: the test does not see them", walked, most)
	}
}

// established returns the packets of a case as packets of established connections.
func established(test Case, family ruleset.Family) (all []Crossing) {
	for _, x := range slices.Concat(test.Packets, test.Walk) {
		if x.Packet.Family == family && x.Packet.State != ruleset.Invalid && x.Packet.State != ruleset.Untracked {
			x.Packet.State, x.Packet.Midstream = ruleset.Established, true
			all = append(all, x)
		}
	}
	return all
}

// mayMeet returns how many rules a packet of an established connection may meet at a hook.
//
// In TPROXY, two in OUTPUT: the answers to the proxy's hop are told by their conntrack mark, where
// they leave by any interface but lo, and connections over lo by their SYN. A map of interface,
// flags and mark would be one rule. But it needs intervals, for "any interface but", and took
// 109 ns a packet in place of 71 (Linux 6.18), on no kernel before 5.6.
//
// udp has no SYN. So who captures it, or DNS, has rules for ports that every packet passes; tcp
// fails them by the protocol. Whoever drops packets of no connection has one more, too.
func mayMeet(spec interception.Spec, hook, protocol string) int {
	may := 1
	count := func(at string, applies bool, rules int) {
		if at == hook && applies {
			may += rules
		}
	}
	dns, udp := spec.DNS.Redirect, spec.UDPPorts != nil
	count("output", spec.System == interception.SystemTProxy, 1)
	count("output", dns, 2)
	count("output", udp, 2)
	count("prerouting", dns, 1+len(spec.VirtualInterfaces))
	count("prerouting", udp, 1)
	count("prerouting", spec.DropInvalid, 1)
	if protocol == "udp" && (dns || udp) {
		may += 6 + len(spec.VirtualInterfaces) // who sends it, and where to
	}
	return may
}

// atHook returns the rules of a table that a packet can meet at one hook, as the kernel has them: a
// rule that looks in a set of ports is one. Of a set of prefixes each counts: no packet of an
// established connection gets to one.
func atHook(t nft.Table, hook string) ruleset.RuleSet {
	rs := ruleset.RuleSet{Family: t.Family}
	for _, name := range []string{"raw", "mangle", "nat", "filter"} {
		table := ruleset.Table{Name: name}
		for _, c := range t.Chains {
			short, is := strings.CutPrefix(c.Name, nft.ChainName(name, ""))
			if !is || c.Hook != nil && c.Hook.Name != hook {
				continue
			}
			chain := ruleset.Chain{Name: short}
			for _, r := range c.Rules {
				chain.Rules = append(chain.Rules, withoutSet(name, r)...)
			}
			table.Chains = append(table.Chains, chain)
		}
		rs.Tables = append(rs.Tables, table)
	}
	return rs
}

func withoutSet(table string, r nft.Rule) (all []ruleset.Rule) {
	target := r.Target
	if jump, is := target.(ruleset.Jump); is {
		jump.Chain = strings.TrimPrefix(jump.Chain, nft.ChainName(table, ""))
		target = jump
	}
	add := func(more ...ruleset.Match) {
		all = append(all, ruleset.Rule{Matches: nft.WithProtocol(slices.Concat(r.Matches, more)), Target: target, Comment: r.Comment})
	}
	switch {
	case r.Set == nil:
		add()
	case r.Set.Ports != nil:
		add(ruleset.Ports{Source: r.Set.Source, Ranges: r.Set.Ports})
	case r.Set.Source:
		for _, p := range r.Set.Prefixes {
			add(ruleset.Source{Prefix: p})
		}
	default:
		for _, p := range r.Set.Prefixes {
			add(ruleset.Destination{Prefix: p})
		}
	}
	return all
}
