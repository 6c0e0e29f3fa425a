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

// inspectable is a Fake that Verify can read, with rules of IPv4 in the other backend.
type inspectable struct {
	*Fake
	other    string
	localnet bool // it takes packets for 127.0.0.0/8 from outside
}

func (i inspectable) Others(_ context.Context, family ruleset.Family) ([]ruleset.RuleSet, error) {
	if family == ruleset.IPv6 || i.other == "" {
		return nil, nil
	}
	rs, err := ruleset.Parse(family, i.other)
	rs.Party = "iptables-legacy"
	return []ruleset.RuleSet{rs}, err
}

func (i inspectable) Addresses() (ruleset.Host, error) {
	first := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}
	second := []netip.Addr{netip.MustParseAddr("10.78.0.1"), netip.MustParseAddr("fd78::1")}
	return ruleset.Host{
		Uplink: "eth0", Addresses: slices.Concat(first, second), NoLocalnet: !i.localnet,
		Interfaces: []ruleset.Interface{{Name: "eth0", Addresses: first}, {Name: "eth1", Addresses: second}},
	}, nil
}

// verified returns what Verify finds in a namespace after a spec was applied and then changed.
func verified(t *testing.T, spec interception.Spec, other string, localnet bool, mutate func(*Fake)) Verdict {
	t.Helper()
	ns := inspectable{NewFake(), other, localnet}
	if _, err := Apply(context.Background(), ns.Fake, both(spec), false); err != nil {
		t.Fatal(err)
	}
	mutate(ns.Fake)
	verdict, err := Verify(context.Background(), ns, both(spec), nil)
	if err != nil {
		t.Fatal(err)
	}
	if (len(verdict.Findings) == 0) != (len(verdict.Causes) == 0) {
		t.Errorf("findings %q are about %q", verdict.Findings, verdict.Causes)
	}
	return verdict
}

// TestCauses checks what findings are said to be about.
func TestCauses(t *testing.T) {
	t.Parallel()
	spec := interception.DefaultFor(interception.SystemTProxy)
	inbound := func(change func([]ruleset.Rule) []ruleset.Rule) func(*ruleset.RuleSet) {
		return func(rs *ruleset.RuleSet) {
			chain := rs.Chain("mangle", "SHUNT_INBOUND")
			chain.Rules = change(slices.Clone(chain.Rules))
		}
	}
	for name, test := range map[string]struct {
		change func(*ruleset.RuleSet)
		other  string
		want   []Cause
	}{
		"nothing":     {change: func(*ruleset.RuleSet) {}},
		"all deleted": {change: func(rs *ruleset.RuleSet) { rs.Tables = nil }, want: []Cause{CauseGone}},
		"a rule": {
			change: inbound(func(rules []ruleset.Rule) []ruleset.Rule { return rules[1:] }), want: []Cause{CauseMissing},
		},
		"another rule": {
			change: inbound(func(rules []ruleset.Rule) []ruleset.Rule { rules[0].Target = ruleset.Accept; return rules }),
			want:   []Cause{CauseChanged},
		},
		"other order": {
			change: inbound(func(rules []ruleset.Rule) []ruleset.Rule { slices.Reverse(rules); return rules }),
			want:   []Cause{CauseChanged},
		},
		"a policy rule": {change: func(rs *ruleset.RuleSet) { rs.Routing.Rules = nil }, want: []Cause{CauseRouting}},
		"a route":       {change: func(rs *ruleset.RuleSet) { rs.Routing.Routes = nil }, want: []Cause{CauseRouting}},
		"another's policy rule": {
			change: func(rs *ruleset.RuleSet) { rs.Routing.Intruders = []string{"rule 0: from all lookup 7"} },
			want:   []Cause{CauseForeign},
		},
		"another's rule": {
			change: func(*ruleset.RuleSet) {},
			other:  "*nat\n-A PREROUTING -p tcp --dport 8080 -j REDIRECT --to-ports 9\nCOMMIT\n",
			want:   []Cause{CauseForeign},
		},
		"cut short": {change: func(rs *ruleset.RuleSet) { rs.Routing.Unreachable = true }, want: []Cause{CauseUnfinished}},
		"two at once": {
			change: func(rs *ruleset.RuleSet) { rs.Routing.Rules, rs.Tables = nil, nil },
			want:   []Cause{CauseGone, CauseRouting},
		},
	} {
		verdict := verified(t, spec, test.other, true, func(ns *Fake) {
			set := ns.Sets[ruleset.IPv4]
			test.change(&set)
			ns.Sets[ruleset.IPv4] = set
		})
		if got := verdict.Causes; !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// systems returns arguments that together build every rule there is.
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

// TestVerifyFindsEveryMutant changes every rule of every system in every way, and removes every
// rule, route and address of the routing.
func TestVerifyFindsEveryMutant(t *testing.T) {
	t.Parallel()
	mutants := 0
	for args, spec := range systems(t) {
		if findings := verified(t, spec, "", true, func(*Fake) {}).Findings; len(findings) > 0 {
			t.Errorf("%s: found in a namespace that is right: %q", args, findings)
		}
		for _, set := range both(spec) {
			for _, table := range set.Tables {
				for _, chain := range table.Chains {
					for at := range chain.Rules {
						for _, m := range mutations {
							mutants += mutateRule(t, args, spec, m, set.Family, table.Name, chain.Name, at)
						}
					}
				}
			}
			mutants += mutateRouting(t, args, spec, set)
		}
	}
	t.Logf("%d mutants", mutants)
}

func mutateRule(t *testing.T, args string, spec interception.Spec, m mutation, f ruleset.Family, table, chain string, at int) int {
	t.Helper()
	done := false
	findings := verified(t, spec, "", true, func(ns *Fake) {
		rs := ns.Sets[f]
		c := rs.Chain(table, chain)
		c.Rules, done = m.do(slices.Clone(c.Rules), at)
	}).Findings
	if !done {
		return 0
	}
	if len(findings) == 0 {
		t.Errorf("%s, %s: not noticed: rule %d of %s %s %s", args, f, at+1, table, chain, m.name)
	}
	return 1
}

func mutateRouting(t *testing.T, args string, spec interception.Spec, set ruleset.RuleSet) int {
	t.Helper()
	mutants := []func(*ruleset.Routing){func(r *ruleset.Routing) { r.Unreachable = true }}
	for i := range set.Routing.Addresses {
		mutants = append(mutants, func(r *ruleset.Routing) { r.Addresses = slices.Delete(slices.Clone(r.Addresses), i, i+1) })
	}
	for i := range set.Routing.Rules {
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
	for i := range set.Routing.Routes {
		mutants = append(mutants, func(r *ruleset.Routing) { r.Routes = slices.Delete(slices.Clone(r.Routes), i, i+1) })
	}
	for i, mutate := range mutants {
		findings := verified(t, spec, "", true, func(ns *Fake) {
			set := ns.Sets[set.Family]
			mutate(&set.Routing)
			ns.Sets[set.Family] = set
		}).Findings
		if len(findings) == 0 {
			t.Errorf("%s, %s: mutant %d of the routing was not noticed: %+v", args, set.Family, i, set.Routing)
		}
	}
	return len(mutants)
}

// What Verify can make of rules of others.
const (
	harmless = ""
	harmful  = "finding"
	blocking = "warning"
)

// TestVerifyLooksAtOthers has a row for each kind of rule that others may or may not have.
func TestVerifyLooksAtOthers(t *testing.T) {
	for _, test := range []struct {
		args  string // of shunt-init; empty for the defaults
		rules string // of iptables, "TABLE CHAIN RULE" each, in our backend
		other string // rules in the other backend

		localnet bool // the pod's route_localnet
		want     string
	}{
		{rules: "nat OUTPUT -j ACCEPT", want: harmless}, // behind ours
		{rules: "filter INPUT -p tcp -j ACCEPT", want: harmless},
		{rules: "raw OUTPUT -j LOG", want: harmless},
		{rules: "filter OUTPUT -d 192.0.2.1 -j DROP", want: blocking}, // the answers to it
		{rules: "raw OUTPUT -p tcp -j CT --notrack", want: harmful},
		{rules: "raw PREROUTING -d 127.0.0.0/8 -j CT --notrack", localnet: true, want: harmful}, // keeps nat from what is sent to loopback
		{rules: "raw PREROUTING -d 127.0.0.0/8 -j CT --notrack", want: harmless},
		{other: "*nat\n-A OUTPUT -p tcp -j REDIRECT --to-ports 9\nCOMMIT\n", want: harmful},
		{other: "*nat\n-A OUTPUT -p tcp -j ACCEPT\nCOMMIT\n", want: harmless},
		{other: "*nat\n-A PREROUTING -d 127.0.0.0/8 -p tcp -j REDIRECT --to-ports 15006\nCOMMIT\n", want: harmful},
		{other: "*nat\n:SHUNT_OUTPUT - [0:0]\n-A OUTPUT -j SHUNT_OUTPUT\n" +
			"-A SHUNT_OUTPUT -p tcp -j REDIRECT --to-ports 15001\nCOMMIT\n", want: harmful},

		// By interface.
		{rules: "raw OUTPUT -o eth1 -j CT --notrack", want: harmful},
		{rules: "raw OUTPUT ! -o eth0 -p tcp -j CT --notrack", want: harmful},
		{rules: "raw OUTPUT -o eth+ -j CT --notrack", want: harmful},
		{rules: "raw OUTPUT -o tun0 -j CT --notrack", want: harmless}, // there is none
		{rules: "raw PREROUTING -i eth1 -j CT --notrack", want: harmful},
		{other: "*nat\n-A OUTPUT -o eth1 -p tcp -j REDIRECT --to-ports 9999\nCOMMIT\n", want: harmful},
		{other: "*nat\n-A PREROUTING -i eth0 -p tcp -j REDIRECT --to-ports 22\nCOMMIT\n", want: harmful},
		{args: "--system ambient", rules: "mangle OUTPUT -o eth1 -j MARK --set-xmark 0x539/0xffffffff", want: harmful},
		{args: "--system ambient", rules: "mangle PREROUTING -i eth0 -j MARK --set-xmark 0x539/0xffffffff", want: harmful},
		{args: "--system ambient", rules: "mangle PREROUTING -i eth0 -j MARK --set-xmark 0x40/0xffffffff", want: harmless},
		{args: "-m TPROXY", rules: "mangle OUTPUT -o eth1 -j MARK --set-xmark 0x539/0xffffffff", want: harmful},

		// By port.
		{rules: "raw OUTPUT -p tcp --dport 9090 -j CT --notrack", want: harmful},
		{rules: "raw PREROUTING -p tcp --dport 9090 -j CT --notrack", want: harmful},
		{rules: "raw PREROUTING -p udp --dport 9090 -j CT --notrack", want: harmless},
		{rules: "raw PREROUTING -p tcp --dport 22 -j CT --notrack", want: harmful}, // the answers
		{rules: "raw OUTPUT -p tcp -m multiport --dports 9090,9091 -j CT --notrack", want: harmful},
		{rules: "raw PREROUTING -p tcp --dport 22:23 -j CT --notrack", want: harmful},
		{rules: "nat PREROUTING -p tcp --dport 9090 -j REDIRECT --to-ports 9999", want: harmless}, // behind ours
		{other: "*nat\n-A PREROUTING -p tcp --dport 9090 -j REDIRECT --to-ports 9999\nCOMMIT\n", want: harmful},
		{other: "*nat\n-A OUTPUT -p tcp --dport 9090 -j REDIRECT\nCOMMIT\n", want: harmful},
		{other: "*nat\n-A OUTPUT -p tcp --dport 9090 -j DNAT --to-destination 10.0.0.5:80\nCOMMIT\n", want: harmful},
		{other: "*nat\n-A PREROUTING -p tcp --dport 22 -j DNAT --to-destination 10.0.0.5:22\nCOMMIT\n", want: harmless},
		{other: "*nat\n-A PREROUTING -p tcp --dport 22 -j REDIRECT --to-ports 15006\nCOMMIT\n", want: harmful},
		{args: "-m TPROXY", rules: "raw PREROUTING -p tcp --dport 9090 -j CT --notrack", want: harmless}, // mangle takes it anyway
		{args: "-m TPROXY", other: "*mangle\n" +
			"-A PREROUTING -p tcp --dport 9090 -j TPROXY --on-port 9999 --on-ip 0.0.0.0 --tproxy-mark 0x1/0x1\nCOMMIT\n", want: harmful},

		// By address, owner and state.
		{args: "--system ambient", rules: "mangle PREROUTING -d 10.78.0.1/32 -j MARK --set-xmark 0x539/0xffffffff", want: harmful},
		{rules: "mangle PREROUTING -d 10.99.0.1/32 -j MARK --set-xmark 0x539/0xffffffff", want: harmless},
		{rules: "raw OUTPUT -d 10.78.0.0/16 -j CT --notrack", want: harmful},
		{rules: "raw OUTPUT ! -d 10.0.0.0/8 -p tcp -j CT --notrack", want: harmful},
		{rules: "raw OUTPUT -s 10.78.0.1/32 -j CT --notrack", want: harmful},
		{rules: "raw PREROUTING -s 10.9.0.0/16 -j CT --notrack", want: harmful},
		{args: "-x 10.9.0.0/16", rules: "raw OUTPUT -d 10.9.0.0/16 -p udp -j CT --notrack", want: harmless},
		{args: "-x 10.9.0.0/16", rules: "raw OUTPUT -d 10.9.0.0/16 -j CT --notrack", want: harmful}, // the answers
		{args: "-x 10.9.0.0/24", rules: "raw OUTPUT -d 10.9.0.0/16 -j CT --notrack", want: harmful},
		{rules: "raw OUTPUT -m owner --uid-owner 2000 -j CT --notrack", want: harmful},
		{rules: "raw OUTPUT -m owner --uid-owner 1337 -j CT --notrack", want: harmful}, // its calls to its own pod
		{rules: "mangle PREROUTING -p tcp -m conntrack --ctstate INVALID -j DROP", want: harmless},

		// Marks of connections.
		{args: "-m TPROXY", rules: "mangle INPUT -j CONNMARK --set-xmark 0x539/0xffffffff", want: harmful},
		{args: "-m TPROXY", rules: "filter INPUT -i eth1 -p tcp -j CONNMARK --set-xmark 0x539/0xffffffff", want: harmful},
		{args: "-m TPROXY", rules: "mangle INPUT -j CONNMARK --set-xmark 0x7/0xffffffff", want: harmful},  // ours is lost
		{args: "-m TPROXY", rules: "mangle INPUT -j CONNMARK --set-xmark 0x10000/0x10000", want: harmful}, // ours is compared in full
		{rules: "mangle INPUT -j CONNMARK --set-xmark 0x539/0xffffffff", want: harmless},                  // REDIRECT has no mark
		{args: "-m TPROXY", rules: "mangle OUTPUT -p tcp --sport 8080 -j MARK --set-xmark 0x0/0xffffffff", want: harmful},

		// Several rules together.
		{rules: ":raw THEIRS\nraw OUTPUT -o eth1 -j THEIRS\nraw THEIRS -p tcp --dport 9090 -j CT --notrack", want: harmful},
		{rules: ":raw THEIRS\nraw OUTPUT -g THEIRS\nraw THEIRS ! -o eth1 -j RETURN\n" +
			"raw THEIRS -p tcp ! --dport 9090 -j RETURN\nraw THEIRS -j CT --notrack", want: harmful},
		{rules: ":raw THEIRS\nraw OUTPUT -j THEIRS\nraw OUTPUT -j CT --notrack\nraw THEIRS ! -o eth1 -j ACCEPT", want: harmful},
		{rules: "raw OUTPUT -j ACCEPT\nraw OUTPUT -j CT --notrack", want: harmless},
		{rules: "raw PREROUTING -i eth1 -j MARK --set-xmark 0x77/0xffffffff", want: harmless,
			other: "*nat\n-A PREROUTING -p tcp -m mark --mark 0x78 -m tcp --dport 9090 -j REDIRECT --to-ports 9\nCOMMIT\n"},
		{rules: "raw PREROUTING -i eth1 -j MARK --set-xmark 0x77/0xffffffff", want: harmful,
			other: "*nat\n-A PREROUTING -p tcp -m mark --mark 0x77 -m tcp --dport 9090 -j REDIRECT --to-ports 9\nCOMMIT\n"},

		// What cannot change where a packet goes.
		{rules: "mangle OUTPUT -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu", want: harmless},
		{rules: "mangle POSTROUTING -j TTL --ttl-set 64", want: harmless},
		{rules: "mangle OUTPUT -j DSCP --set-dscp 0x2e", want: harmless},
		{rules: "filter INPUT -p tcp --dport 22 -m recent --set --name ssh", want: harmless},
		{rules: "filter INPUT -p tcp -m hashlimit --hashlimit-upto 5/sec --hashlimit-name x -j ACCEPT", want: harmless},
		{rules: "filter OUTPUT -m policy --dir out --pol ipsec -j ACCEPT", want: harmless},
		{rules: "filter OUTPUT -m bpf --bytecode 1 -j NFQUEUE --queue-num 1", want: harmless},
		{rules: "mangle PREROUTING -j CONNMARK --save-mark --nfmask 0xff0000 --ctmask 0xff0000", want: harmless},
		{other: "*nat\n-A POSTROUTING -o eth0 -j MASQUERADE\nCOMMIT\n", want: harmless},
		{other: "*nat\n:DOCKER_OUTPUT - [0:0]\n-A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT\n" +
			"-A DOCKER_OUTPUT -p tcp -m tcp --dport 53 -j DNAT --to-destination 127.0.0.11:41455\nCOMMIT\n", want: harmless},
		// A match that is not understood is tried both ways.
		{rules: "raw OUTPUT -m string --string x --algo bm -j CT --notrack", want: harmful},
		{rules: "raw OUTPUT -p tcp --dport 9090 -m bpf --bytecode 1 -j CT --notrack", want: harmful},
		{rules: "raw OUTPUT -m string --string x --algo bm -j ACCEPT\nraw OUTPUT -j CT --notrack", want: harmful},
		{rules: "mangle OUTPUT -j HMARK --hmark-tuple src --hmark-mod 2", want: harmful},

		// What blocks.
		{rules: "filter INPUT -p tcp -m hashlimit --hashlimit-above 5/sec --hashlimit-name x -j DROP", want: blocking},
		{rules: "filter INPUT -j REJECT --reject-with icmp-port-unreachable", want: blocking},
		{rules: "policy filter INPUT DROP", want: blocking},
		{rules: "policy filter INPUT DROP\nfilter INPUT -j ACCEPT", want: harmless},
		{rules: "raw PREROUTING -i eth1 -p tcp --dport 9090 -j DROP", want: blocking},
		{rules: "raw OUTPUT -p tcp --sport 15006 -j CT --notrack", want: blocking},
	} {
		t.Run(test.args+" "+test.rules+test.other, func(t *testing.T) {
			spec, _, err := interception.ParseArgs(strings.Fields(test.args))
			if err != nil {
				t.Fatal(err)
			}
			verdict := verified(t, spec, test.other, test.localnet, func(ns *Fake) {
				if test.rules != "" {
					addForeign(t, ns, test.rules)
				}
			})
			got := harmless
			switch {
			case len(verdict.Findings) > 0:
				got = harmful
			case len(verdict.Warnings) > 0:
				got = blocking
			}
			if got != test.want {
				t.Errorf("%q, want %q: %+v", got, test.want, verdict)
			}
		})
	}
}

// addForeign appends rules to the IPv4 tables, "TABLE CHAIN RULE" a line. A line ":TABLE CHAIN"
// creates a chain, and "policy TABLE CHAIN POLICY" sets a policy.
func addForeign(t *testing.T, ns *Fake, lines string) {
	t.Helper()
	set := ns.Sets[ruleset.IPv4]
	set.Tables = slices.Clone(set.Tables)
	for line := range strings.SplitSeq(lines, "\n") {
		words := strings.SplitN(line, " ", 4)
		var text, declaration string
		switch {
		case words[0] == "policy":
			text = "*" + words[1] + "\n:" + words[2] + " " + words[3] + " [0:0]\nCOMMIT\n"
		case strings.HasPrefix(line, ":"):
			text = "*" + words[0][1:] + "\n:" + words[1] + " - [0:0]\nCOMMIT\n"
		default:
			words = strings.SplitN(line, " ", 3)
			if words[1] == "THEIRS" {
				declaration = ":THEIRS - [0:0]\n"
			}
			if strings.HasSuffix(line, "THEIRS") {
				declaration = ":THEIRS - [0:0]\n"
			}
			text = "*" + words[0] + "\n" + declaration + "-A " + words[1] + " " + words[2] + "\nCOMMIT\n"
		}
		read, err := ruleset.Parse(ruleset.IPv4, text)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range read.Tables[0].Chains {
			appendTo(&set, read.Tables[0].Name, c)
		}
	}
	ns.Sets[ruleset.IPv4] = set
}

// appendTo appends rules to a chain.
func appendTo(set *ruleset.RuleSet, table string, existing ruleset.Chain) {
	i := slices.IndexFunc(set.Tables, func(t ruleset.Table) bool { return t.Name == table })
	if i < 0 {
		set.Tables = append(set.Tables, ruleset.Table{Name: table})
		i = len(set.Tables) - 1
	}
	chains := slices.Clone(set.Tables[i].Chains)
	n := slices.IndexFunc(chains, func(have ruleset.Chain) bool { return have.Name == existing.Name })
	if n < 0 {
		chains = append(chains, existing)
	} else {
		chains[n].Rules = slices.Concat(chains[n].Rules, existing.Rules)
		if existing.Policy != "" {
			chains[n].Policy = existing.Policy
		}
	}
	set.Tables[i].Chains = chains
}
