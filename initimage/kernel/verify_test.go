package kernel

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// inspected is a Fake that Verify can look at, with the rules of the backend
// that is not used, which are of IPv4.
type inspected struct {
	*Fake
	other string
}

func (i inspected) SaveOther(_ context.Context, family ruleset.Family) (string, error) {
	if family == ruleset.IPv6 {
		return "", nil
	}
	return i.other, nil
}

func (i inspected) Addresses() (ruleset.Host, error) {
	return ruleset.Host{
		Uplink: "eth0", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
	}, nil
}

// verified returns what Verify finds in a namespace after a spec was applied
// and something was done to it.
func verified(t *testing.T, spec interception.Spec, other string, mutate func(*Fake)) []string {
	t.Helper()
	ns := inspected{NewFake(), other}
	if _, err := Apply(context.Background(), ns.Fake, both(spec), false); err != nil {
		t.Fatal(err)
	}
	mutate(ns.Fake)
	findings, err := Verify(context.Background(), ns, both(spec), nil)
	if err != nil {
		t.Fatal(err)
	}
	return findings
}

// systems are arguments that between them build every rule that there is.
func systems(t *testing.T) map[string]interception.Spec {
	t.Helper()
	all := map[string]interception.Spec{}
	for _, args := range []string{
		"-m REDIRECT", "-m TPROXY", "--system ambient", "--system legacy",
		"-m REDIRECT --redirect-dns --capture-all-dns -k net1 -c net2 --drop-invalid",
		"-m TPROXY --redirect-dns --dns-servers 10.0.0.53,fd00::53 --capture-udp-ports 443 --reject-udp-ports 444 -b 80 -o 25 -q 9",
		"--system ambient --redirect-dns --capture-all-dns -i 10.0.0.0/8,fd00::/8 -x 10.1.0.0/16 --outbound-owner-groups 5",
	} {
		spec, _, err := interception.ParseArgs(strings.Fields(args))
		if err != nil {
			t.Fatal(err)
		}
		all[args] = spec
	}
	return all
}

// mutation changes the rules of a chain at one place, or reports that it
// cannot.
type mutation struct {
	name string
	do   func(rules []ruleset.Rule, at int) ([]ruleset.Rule, bool)
}

var mutations = []mutation{
	{"deleted", func(rules []ruleset.Rule, at int) ([]ruleset.Rule, bool) { return slices.Delete(rules, at, at+1), true }},
	{"moved", func(rules []ruleset.Rule, at int) ([]ruleset.Rule, bool) {
		if at == 0 || rules[at].String() == rules[at-1].String() {
			return rules, false
		}
		rules[at-1], rules[at] = rules[at], rules[at-1]
		return rules, true
	}},
	{"doubled", func(rules []ruleset.Rule, at int) ([]ruleset.Rule, bool) {
		return slices.Insert(rules, at, rules[at]), true
	}},
	{"behind a foreign ACCEPT", func(rules []ruleset.Rule, at int) ([]ruleset.Rule, bool) {
		return slices.Insert(rules, at, ruleset.Rule{Target: ruleset.Accept}), true
	}},
}

// TestVerifyFindsEveryMutant changes every rule of every system in every way,
// and takes away every rule, route and address of the routing.
func TestVerifyFindsEveryMutant(t *testing.T) {
	mutants := 0
	for args, spec := range systems(t) {
		if findings := verified(t, spec, "", func(*Fake) {}); len(findings) > 0 {
			t.Errorf("%s: found in a namespace that is right: %q", args, findings)
		}
		for _, rs := range both(spec) {
			for _, table := range rs.Tables {
				for _, chain := range table.Chains {
					for at := range chain.Rules {
						for _, m := range mutations {
							mutants += mutateRule(t, args, spec, m, rs.Family, table.Name, chain.Name, at)
						}
					}
				}
			}
			mutants += mutateRouting(t, args, spec, rs)
		}
	}
	t.Logf("%d mutants", mutants)
}

func mutateRule(t *testing.T, args string, spec interception.Spec, m mutation, f ruleset.Family, table, chain string, at int) int {
	t.Helper()
	done := false
	findings := verified(t, spec, "", func(ns *Fake) {
		rs := ns.Sets[f]
		c := rs.Chain(table, chain)
		c.Rules, done = m.do(slices.Clone(c.Rules), at)
	})
	if !done {
		return 0
	}
	if len(findings) == 0 {
		t.Errorf("%s, %s: not noticed: rule %d of %s %s %s", args, f, at+1, table, chain, m.name)
	}
	return 1
}

func mutateRouting(t *testing.T, args string, spec interception.Spec, rs ruleset.RuleSet) int {
	t.Helper()
	mutants := []func(*ruleset.Routing){func(r *ruleset.Routing) { r.Unreachable = true }}
	for i := range rs.Routing.Addresses {
		mutants = append(mutants, func(r *ruleset.Routing) { r.Addresses = slices.Delete(slices.Clone(r.Addresses), i, i+1) })
	}
	for i := range rs.Routing.Rules {
		mutants = append(mutants,
			func(r *ruleset.Routing) { r.Rules = slices.Delete(slices.Clone(r.Rules), i, i+1) },
			func(r *ruleset.Routing) { r.Rules = slices.Clone(r.Rules); r.Rules[i].Table++ },
			func(r *ruleset.Routing) { r.Rules = slices.Clone(r.Rules); r.Rules[i].Priority = 40000 },
			func(r *ruleset.Routing) { r.Rules = slices.Clone(r.Rules); r.Rules[i].OutInterface = "eth0" },
			func(r *ruleset.Routing) {
				r.Rules = slices.Clone(r.Rules)
				r.Rules[i].Source = netip.MustParsePrefix("fd00::/8")
			})
	}
	for i := range rs.Routing.Routes {
		mutants = append(mutants, func(r *ruleset.Routing) { r.Routes = slices.Delete(slices.Clone(r.Routes), i, i+1) })
	}
	for i, mutate := range mutants {
		findings := verified(t, spec, "", func(ns *Fake) {
			set := ns.Sets[rs.Family]
			mutate(&set.Routing)
			ns.Sets[rs.Family] = set
		})
		if len(findings) == 0 {
			t.Errorf("%s, %s: mutant %d of the routing was not noticed: %+v", args, rs.Family, i, rs.Routing)
		}
	}
	return len(mutants)
}

// TestVerifyLooksAtOthers holds what others' rules may do, and what not.
func TestVerifyLooksAtOthers(t *testing.T) {
	for _, c := range []struct {
		name, table, chain, rule, other string
		found                           bool
	}{
		{"a rule behind ours", "nat", "OUTPUT", "-j ACCEPT", "", false},
		{"a rule at another hook", "filter", "INPUT", "-p tcp -j ACCEPT", "", false},
		{"a rule that logs", "raw", "OUTPUT", "-j LOG", "", false},
		{"a rule that drops", "filter", "OUTPUT", "-d 192.0.2.1 -j DROP", "", false},
		{"packets that nat does not see", "raw", "OUTPUT", "-p tcp -j CT --notrack", "", true},
		{"the other backend's nat", "", "", "", "*nat\n-A OUTPUT -p tcp -j REDIRECT --to-ports 9\nCOMMIT\n", true},
		{"a rule of the other backend that accepts", "", "", "", "*nat\n-A OUTPUT -p tcp -j ACCEPT\nCOMMIT\n", false},
		{"a rule of the other backend that takes what is for loopback", "", "", "",
			"*nat\n-A PREROUTING -d 127.0.0.0/8 -p tcp -j REDIRECT --to-ports 9\nCOMMIT\n", true},
		{"a rule of others that hides what is for loopback from nat", "raw", "PREROUTING", "-d 127.0.0.0/8 -j CT --notrack", "", true},
		{"our rules in the other backend", "", "", "",
			"*nat\n:SHUNT_OUTPUT - [0:0]\n-A OUTPUT -j SHUNT_OUTPUT\n-A SHUNT_OUTPUT -p tcp -j REDIRECT --to-ports 15001\nCOMMIT\n", true},
	} {
		findings := verified(t, interception.Default(), c.other, func(ns *Fake) {
			if c.table == "" {
				return
			}
			text := "*" + c.table + "\n-A " + c.chain + " " + c.rule + "\nCOMMIT\n"
			foreign, err := ruleset.Parse(ruleset.IPv4, text)
			if err != nil {
				t.Fatal(err)
			}
			tx := Transaction{Family: ruleset.IPv4, Tables: []TableChange{{Table: c.table, Steps: []Step{
				{Verb: Append, Chain: c.chain, Rule: foreign.Tables[0].Chains[0].Rules[0]},
			}}}}
			if err := ns.Restore(context.Background(), tx); err != nil {
				t.Fatal(err)
			}
		})
		if (len(findings) > 0) != c.found {
			t.Errorf("%s: found %q", c.name, findings)
		}
	}
}
