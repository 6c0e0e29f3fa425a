package nft_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/test/rules"
)

const wantedText = `table ip shunt
delete table ip shunt
table ip shunt {
	set nat_shunt_outbound_1 {
		type ipv4_addr
		flags interval
		elements = { 10.0.0.0/8, 192.168.7.7 }
	}
	set nat_shunt_outbound_2 {
		type inet_service
		flags interval
		elements = { 80, 8000-8100 }
	}
	chain nat_SHUNT_OUTBOUND {
		ip daddr @nat_shunt_outbound_1 counter return comment "destination left alone"
		meta l4proto tcp th dport @nat_shunt_outbound_2 counter jump nat_SHUNT_REDIRECT comment "ports"
		ip daddr 172.16.0.0/12 meta l4proto udp counter reject with icmp port-unreachable comment "one prefix"
	}
	chain nat_SHUNT_REDIRECT {
		meta l4proto tcp counter redirect to :15001 comment "to the proxy"
	}
	chain nat_OUTPUT {
		type nat hook output priority -101; policy accept;
		meta l4proto tcp counter jump nat_SHUNT_OUTBOUND comment "shunt: all"
	}
	chain mangle_PREROUTING {
		type filter hook prerouting priority -151; policy accept;
		ip daddr != 127.0.0.1 meta l4proto tcp counter tproxy to :15006 accept comment "taken"
		ip daddr != 127.0.0.1 meta l4proto tcp counter drop comment "shunt: nobody listens there"
	}
}
`

func small() ruleset.RuleSet {
	to := func(prefix string) ruleset.Match { return ruleset.Destination{Prefix: netip.MustParsePrefix(prefix)} }
	tcp := ruleset.Protocol{Name: "tcp"}
	ports := func(first, last uint16) ruleset.Match {
		return ruleset.Ports{Protocol: "tcp", Ranges: interception.PortRanges{{First: first, Last: last}}}
	}
	rule := func(why string, target ruleset.Target, matches ...ruleset.Match) ruleset.Rule {
		return ruleset.Rule{Matches: matches, Target: target, Comment: why}
	}
	const outbound, redirect = "SHUNT_OUTBOUND", "SHUNT_REDIRECT"
	return ruleset.RuleSet{Family: ruleset.IPv4, Tables: []ruleset.Table{
		{Name: "nat", Chains: []ruleset.Chain{
			{Name: "OUTPUT", Rules: []ruleset.Rule{rule("shunt: all", ruleset.Jump{Chain: outbound}, tcp)}},
			{Name: outbound, Rules: []ruleset.Rule{
				rule("destination left alone", ruleset.Return, to("192.168.7.7/32")),
				rule("destination left alone", ruleset.Return, to("10.1.0.0/16")),
				rule("destination left alone", ruleset.Return, to("10.0.0.0/8")),
				rule("destination left alone", ruleset.Return, to("10.2.0.0/16")),
				rule("ports", ruleset.Jump{Chain: redirect}, tcp, ports(8000, 8100)),
				rule("ports", ruleset.Jump{Chain: redirect}, tcp, ports(80, 80)),
				rule("one prefix", ruleset.Reject{With: "icmp-port-unreachable"}, to("172.16.0.0/12"), ruleset.Protocol{Name: "udp"}),
			}},
			{Name: redirect, Rules: []ruleset.Rule{rule("to the proxy", ruleset.Redirect{Port: 15001}, tcp)}},
		}},
		{Name: "mangle", Chains: []ruleset.Chain{{Name: "PREROUTING", Rules: []ruleset.Rule{
			rule("taken", ruleset.TProxy{Port: 15006, Address: netip.IPv4Unspecified()},
				ruleset.Destination{Prefix: netip.MustParsePrefix("127.0.0.1/32"), Not: true}, tcp),
		}}}},
	}}
}

// TestCompile compiles a rule set with lists that overlap, in no order.
func TestCompile(t *testing.T) {
	table, err := nft.Compile(small())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wantedText, table.String()); diff != "" {
		t.Errorf("(-want +compiled)\n%s", diff)
	}
}

// TestCompileNothing compiles a rule set without rules: there is no table then.
func TestCompileNothing(t *testing.T) {
	table, err := nft.Compile(ruleset.RuleSet{Family: ruleset.IPv6})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("table ip6 shunt\ndelete table ip6 shunt\n", table.String()); diff != "" {
		t.Errorf("(-want +compiled)\n%s", diff)
	}
}

// TestCompileDeniesWhatIsNotOurs gives Compile rules that somebody else made. It must not leave a
// condition out, or make something else of it.
func TestCompileDeniesWhatIsNotOurs(t *testing.T) {
	several := ruleset.Ports{Ranges: interception.PortRanges{{First: 1, Last: 1}, {First: 3, Last: 3}}, Not: true}
	foreign := []ruleset.Rule{
		{Matches: []ruleset.Match{ruleset.OpaqueMatch{Args: []string{"-m", "limit"}}}, Target: ruleset.Return},
		{Matches: []ruleset.Match{several}, Target: ruleset.Return},
		{Matches: []ruleset.Match{ruleset.Protocol{Name: "sctp"}}, Target: ruleset.Return},
		{Target: ruleset.OpaqueTarget{Args: []string{"-j", "LOG"}}},
		{Target: ruleset.Sequence{ruleset.Return}},
		{Target: ruleset.TProxy{Port: 1, Address: netip.IPv4Unspecified(), Mark: 1, Mask: 1}},
		{Target: ruleset.TProxy{Port: 1, Address: netip.MustParseAddr("127.0.0.1")}},
		{Target: ruleset.Redirect{}},
		{Target: ruleset.DNAT{Port: 1}},
		{Target: ruleset.SaveMark{Masks: ruleset.Masks{SparePacket: 1}}},
		{Target: ruleset.Reject{With: "tcp-reset"}},
		{},
		{Target: ruleset.Return, Comment: `"; accept`},
		{Target: ruleset.Return, Comment: strings.Repeat("a", 128)},
	}
	for _, r := range foreign {
		rs := ruleset.RuleSet{Family: ruleset.IPv4, Tables: []ruleset.Table{{Name: "nat", Chains: []ruleset.Chain{
			{Name: "OUTPUT", Rules: []ruleset.Rule{r}}}}}}
		if table, err := nft.Compile(rs); err == nil {
			t.Errorf("%s became\n%s", r, table)
		}
	}
	rs := ruleset.RuleSet{Family: ruleset.IPv4, Tables: []ruleset.Table{{Name: "nat", Chains: []ruleset.Chain{{Name: "POSTROUTING"}}}}}
	if table, err := nft.Compile(rs); err == nil {
		t.Errorf("a chain of others became\n%s", table)
	}
}

// FuzzNormal checks any arguments and any packet. A table must send each packet where the rules do
// that it was compiled from, and its normal form must be the form of itself.
func FuzzNormal(f *testing.F) {
	addCorpus(f)
	f.Fuzz(func(t *testing.T, args, sent string) {
		spec, _, err := interception.ParseArgs(strings.Split(args, "\n"))
		if err != nil {
			return
		}
		packet, err := ruleset.ParsePacket(sent)
		if err != nil {
			return
		}
		built := ruleset.Build(spec, packet.Family)
		text := built.String()
		normal := nft.Normal(built)
		if after := built.String(); after != text {
			t.Fatalf("Normal changed what it was given (-before +after):\n%s", cmp.Diff(text, after))
		}
		if diff := ruleset.Diff(normal, nft.Normal(normal)); diff != nil {
			t.Fatalf("Normal of Normal: %q", diff)
		}
		table, err := nft.Compile(built)
		if err != nil {
			t.Fatal(err)
		}
		again, err := nft.Compile(normal)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(table.String(), again.String()); diff != "" {
			t.Fatalf("the table of Normal (-built +normal):\n%s", diff)
		}
		want, got := ruleset.Trace(built, pod, packet), ruleset.Trace(normal, pod, packet)
		if want.Outcome != got.Outcome || want.Zone != got.Zone || want.Answer != got.Answer || want.Untracked != got.Untracked {
			t.Errorf("%s\nbuilt:\n%s\nnormal:\n%s", sent, want, got)
		}
	})
}

// pod is the host of the corpus.
var pod = rules.Pod

// addCorpus adds each packet of each rule case as a seed, and lists that overlap.
func addCorpus(f *testing.F) {
	f.Helper()
	f.Add("-m\nTPROXY\n-x\n10.1.0.0/16,10.0.0.0/8,10.2.0.0/16,192.168.0.0/16\n-o\n81,80,82,100-200,150", "out tcp 10.2.0.1:80")
	f.Add("--redirect-dns\n--dns-servers\n10.0.0.53,10.0.0.54,10.0.0.53", "out udp 10.0.0.54:53")
	cases, err := rules.Load("../../test/rules/testdata/cases")
	if err != nil || len(cases) == 0 {
		f.Fatal("no cases to start from", err)
	}
	for _, c := range cases {
		for _, crossing := range slices.Concat(c.Packets, c.Walk) {
			packet, _, _ := strings.Cut(crossing.Text, " -> ")
			f.Add(strings.Join(c.Args, "\n"), packet)
		}
	}
}
