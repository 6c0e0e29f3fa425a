package prove

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
	"github.com/shunt-dev/shunt/test/rules"
)

func wanted(t testing.TB, args string) trace.Pod {
	t.Helper()
	spec, _, err := interception.ParseArgs(strings.Fields(args))
	if err != nil {
		t.Fatal(err)
	}
	return trace.Wanted(args, spec, ruleset.Families)
}

// listing is a pod with Istio's rules, in some families.
func listing(t testing.TB, name string, families ...ruleset.Family) trace.Pod {
	t.Helper()
	pod := trace.Pod{Name: name}
	for _, family := range ruleset.Families {
		side := trace.Side{Family: family, Host: trace.InventedHost()}
		side.Host.NoLocalnet = true
		if slices.Contains(families, family) {
			set, err := rules.Listing{Name: name}.Read("../../test/rules/testdata/listings", family)
			if err != nil {
				t.Fatal(err)
			}
			if (name == "redirect" || name == "dns") && family == ruleset.IPv6 { // what a listing does not say
				set.Routing.Addresses = []netip.Prefix{netip.MustParsePrefix("::6/128")}
			}
			side.Sets, side.Routing = []ruleset.RuleSet{set}, set.Routing
		}
		pod.Sides = append(pod.Sides, side)
	}
	pod.Proxy = trace.Identify(pod.Sides)
	return pod
}

// with adds rules of others to both families of a pod.
func with(t testing.TB, pod trace.Pod, others string) trace.Pod {
	t.Helper()
	pod.Sides = slices.Clone(pod.Sides)
	for i := range pod.Sides {
		set, err := ruleset.Parse(pod.Sides[i].Family, others)
		if err != nil {
			t.Fatal(err)
		}
		set.Party = "legacy"
		pod.Sides[i].Sets = slices.Insert(slices.Clone(pod.Sides[i].Sets), 0, set)
	}
	return pod
}

func verdicts(result Result) map[string]Verdict {
	found := map[string]Verdict{}
	for _, s := range result.Statements {
		found[s.Name] = s.Verdict
	}
	return found
}

// holds reports whether everything is proved.
func holds(result Result) bool {
	return !slices.ContainsFunc(result.Statements, func(s Statement) bool { return s.Verdict != Proved })
}

func statement(result Result, name string) *Statement {
	i := slices.IndexFunc(result.Statements, func(s Statement) bool { return s.Name == name })
	return &result.Statements[i]
}

func text(t testing.TB, result Result) string {
	t.Helper()
	var b strings.Builder
	if err := Text(&b, []Result{result}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestOurRules proves everything of each system, with the flags that make exceptions.
func TestOurRules(t *testing.T) {
	for _, args := range []string{
		"-m REDIRECT", "-m TPROXY", "--system ambient", "--system legacy", "-m REDIRECT --redirect-dns --capture-all-dns",
		"-m TPROXY --redirect-dns --dns-servers=10.0.0.53,fd00::53",
		"-m REDIRECT -o 25 -i 10.0.0.0/8,fd00::/8 -x 10.1.0.0/16,fd00:1::/32 -q 9999",
		"-m TPROXY --capture-udp-ports=443 --reject-udp-ports=8443 --drop-invalid -c net1", "-m REDIRECT -b 8080,9000 -d 22 -u 0 -g 0",
		"-m TPROXY -u 0 -g 0", "-m REDIRECT --redirect-dns --capture-all-dns -k net1",
	} {
		if result := Prove(wanted(t, args)); !holds(result) {
			t.Errorf("%s", text(t, result))
		}
	}
}

// TestListings proves of Istio's rules what is known of them. Those that redirect in nat give the
// proxy what a neighbour sends to 0.0.0.0, which connect(2) takes for this host.
func TestListings(t *testing.T) {
	for _, test := range []struct {
		name     string
		families []ruleset.Family
		refuted  map[string]string // by name, a part of the reason
	}{
		{"redirect", ruleset.Families, map[string]string{"loopback": ""}},
		{"redirect", []ruleset.Family{ruleset.IPv4}, map[string]string{"out": "no rule looks at it", "in": "no rule looks at it",
			"families": "not by IPv6", "loopback": ""}},
		// A query from port 53 looks like one of the proxy when it is answered.
		{"dns", ruleset.Families, map[string]string{"loopback": "", "answers": "zone 1"}},
		{"ambient", ruleset.Families, map[string]string{"loopback": ""}},
		{"legacy", ruleset.Families, map[string]string{"loopback": ""}},
		// The proxy has uid 1337, and its connection to the app comes back to it.
		{"tproxy", ruleset.Families, map[string]string{"loop": "comes back to the proxy"}},
	} {
		result := Prove(listing(t, test.name, test.families...))
		for _, s := range result.Statements {
			why, refuted := test.refuted[s.Name]
			if refuted != (s.Verdict == Refuted) || !strings.Contains(s.Why, why) {
				t.Errorf("%s: %s is %s: %s\n%s", test.name, s.Name, s.Verdict, s.Why, text(t, result))
			}
		}
	}
}

// TestTProxyAsRoot takes Istio's TPROXY rules with a proxy of uid 0: nothing loops.
func TestTProxyAsRoot(t *testing.T) {
	pod := listing(t, "tproxy", ruleset.Families...)
	pod.Proxy.UID = 0
	if result := Prove(pod); !holds(result) {
		t.Errorf("%s", text(t, result))
	}
}

// TestTheTwoQuestions asks what the first document about Istio's rules leaves open. Does the reply,
// or the proxy's own hop, meet REDIRECT again? Does the proxy rewrite packets, or open a connection
// of its own?
func TestTheTwoQuestions(t *testing.T) {
	pod := listing(t, "redirect", ruleset.Families...)
	if got := verdicts(Prove(pod)); got["loop"] != Proved || got["answers"] != Proved {
		t.Errorf("%v", got)
	}
	proxied := 0
	for _, family := range ruleset.Families {
		for _, sender := range newUniverse(family, []*trace.Pod{&pod}, ruleset.New).senders() {
			for class := range sender.classes(&pod) {
				journey := class.Journeys[0]
				if !journey.End.Proxied || journey.End.Kind != trace.EndApp && journey.End.Kind != trace.EndOutside {
					continue
				}
				proxied++
				if len(journey.Legs) != 4 { // two connections, each with its answer
					t.Errorf("%s: %d legs", journey.Connection.Packet, len(journey.Legs))
				}
				for _, leg := range journey.Legs {
					if leg.Answer && leg.Path.Outcome.Fate != ruleset.Direct {
						t.Errorf("%s is diverted: %s", leg.Packet, leg.Path.Outcome)
					}
				}
			}
		}
	}
	if proxied == 0 {
		t.Error("the proxy gets nothing")
	}
}

// marksApp are rules of others whose mark is the proxy's.
const marksApp = "*mangle\n-A OUTPUT -m owner --uid-owner 2000 -j MARK --set-xmark 0x539/0xffffffff\nCOMMIT\n"

// TestOthers puts rules of others beside ours.
func TestOthers(t *testing.T) {
	for _, test := range []struct {
		args, others, statement string
		want                    Verdict
		why                     string
	}{
		{"-m REDIRECT", "*nat\n-A OUTPUT -p tcp -m tcp --dport 9090 -j ACCEPT\nCOMMIT\n", "out", Proved, ""}, // ours come after it
		{
			"-m REDIRECT", "*nat\n-A OUTPUT -p tcp -m tcp --dport 9090 -j REDIRECT --to-ports 7\nCOMMIT\n",
			"out", Refuted, "a rule of others",
		},
		{"-m REDIRECT", "*raw\n-A OUTPUT -p tcp -m tcp --dport 9090 -j CT --notrack\nCOMMIT\n", "out", Refuted, "a rule of others"},
		{
			"-m REDIRECT", "*raw\n-A PREROUTING -i eth0 -p tcp -m tcp --dport 9090 -j CT --notrack\nCOMMIT\n",
			"in", Refuted, "a rule of others",
		},
		{"-m REDIRECT", "*filter\n-A OUTPUT -p tcp -m tcp --dport 25 -j DROP\nCOMMIT\n", "out", Proved, ""},
		{"-m TPROXY", marksApp, "answers", Refuted, "kept in the pod"},
		{
			"-m REDIRECT", "*raw\n-A OUTPUT -m geoip --dst-cc NL -j CT --notrack\nCOMMIT\n",
			"out", Unknown, "not known whether a rule matches",
		},
		{
			"-m REDIRECT", "*nat\n-A OUTPUT -m owner --uid-owner 1337 -j REDIRECT --to-ports 15001\nCOMMIT\n",
			"loop", Refuted, "comes back to the proxy",
		},
	} {
		result := Prove(with(t, wanted(t, test.args), test.others))
		if s := statement(result, test.statement); s.Verdict != test.want || !strings.Contains(s.Why, test.why) {
			t.Errorf("%s with %s: %s is %s, want %s\n%s", test.args, test.others, test.statement, s.Verdict, test.want, text(t, result))
		}
	}
}

// TestUnread says of a source that could not be read whole that nothing of it is proved.
func TestUnread(t *testing.T) {
	pod := wanted(t, "-m REDIRECT")
	pod.Sides[1].Unread = []string{"ip -6 rule: no such file"}
	result := Prove(pod)
	for _, s := range result.Statements {
		if s.Verdict != Unknown || !strings.Contains(s.Why, "ip -6 rule") {
			t.Errorf("%s: %s, %q", s.Name, s.Verdict, s.Why)
		}
	}
}

// randomConnection draws a connection that a sender of prove may open.
func randomConnection(r *rand.Rand, pod *trace.Pod, family ruleset.Family) trace.Connection {
	addresses := map[ruleset.Family]string{
		ruleset.IPv4: "10.0.0.1 10.0.0.9 10.1.0.0 10.1.255.255 10.0.0.53 127.0.0.1 127.0.0.6 127.0.0.7 192.0.2.1 169.254.7.127 11.0.0.0",
		ruleset.IPv6: "fd00::1 fd00::9 fd00:1::1 fd00::53 ::1 ::6 2001:db8::1 fe80::1",
	}
	all := strings.Fields(addresses[family])
	address := func() netip.Addr { return netip.MustParseAddr(all[r.IntN(len(all))]) }
	ports := []uint16{22, 25, 53, 80, 443, 3306, 8080, 8443, 9999, 15001, 15006, 15008, 15020, 15021, 15053, 15090, 40000}
	packet := ruleset.Packet{
		Family: family, Protocol: []string{"tcp", "udp"}[r.IntN(2)], Dst: address(), State: ruleset.New,
		SrcPort: ports[r.IntN(len(ports))], DstPort: ports[r.IntN(len(ports))],
	}
	switch r.IntN(3) {
	case 0:
		packet.Direction, packet.Src, packet.Interface = ruleset.In, address(), "eth0"
		return trace.Connection{From: trace.Outside, Packet: packet}
	case 1:
		packet.Direction, packet.UID, packet.GID = ruleset.Out, pod.Proxy.UID, pod.Proxy.GID
		if pod.Proxy.MarkAll {
			packet.Mark = pod.Proxy.Mark
		}
		return trace.Connection{From: trace.TheProxy, Packet: packet}
	}
	ids := []uint32{0, 1000, 1337, 1338, 2000}
	packet.Direction, packet.UID, packet.GID = ruleset.Out, ids[r.IntN(len(ids))], ids[r.IntN(len(ids))]
	return trace.Connection{From: trace.App, Packet: packet}
}

// TestClassesAreJourneys follows random connections by trace, and wants each to go as its class
// does: packet by packet to the same end.
func TestClassesAreJourneys(t *testing.T) {
	pods := []trace.Pod{
		listing(t, "tproxy", ruleset.Families...), listing(t, "redirect", ruleset.IPv4), listing(t, "ambient", ruleset.Families...),
		with(t, wanted(t, "-m TPROXY"), marksApp),
	}
	for _, args := range []string{"-m REDIRECT -o 25", "-m TPROXY -u 0 -g 0", "--system ambient", "--system legacy",
		"-m REDIRECT --redirect-dns --dns-servers=10.0.0.53,fd00::53 -x 10.1.0.0/16 -u 1338"} {
		pods = append(pods, wanted(t, args))
	}
	compared := 0
	for _, pod := range pods {
		r := rand.New(rand.NewPCG(17, 4))
		for _, family := range ruleset.Families {
			all := classesOf(&pod, family)
			for range 300 {
				connection := randomConnection(r, &pod, family)
				in := holding(all, connection)
				if len(in) == 0 && unsendable(connection.Packet, family) {
					continue
				}
				if len(in) != 1 {
					t.Fatalf("%s: %s is in %d classes", pod.Name, connection.Packet, len(in))
				}
				compared++
				connection.HopPort = in[0].class.Journeys[0].Connection.HopPort
				checkJourney(t, pod, connection, in[0].class)
			}
		}
	}
	t.Logf("%d connections go as their classes", compared)
}

// entry is a class and whose it is.
type entry struct {
	sender sender
	class  trace.Class
}

func classesOf(pod *trace.Pod, family ruleset.Family) (all []entry) {
	for _, s := range newUniverse(family, []*trace.Pod{pod}, ruleset.New).senders() {
		for class := range s.classes(pod) {
			all = append(all, entry{s, class})
		}
	}
	return all
}

// holding returns the classes that a connection is in, if the proxy's own connection is from an
// ordinary port.
func holding(all []entry, connection trace.Connection) (in []entry) {
	for _, e := range all {
		from := e.sender.actor == connection.From && e.sender.template.Mark == connection.Packet.Mark
		if from && e.class.Box.Contains(connection.Packet) && e.class.Journeys[0].Connection.HopPort == 50000 {
			in = append(in, e)
		}
	}
	return in
}

// checkJourney checks that a connection goes as its class does.
func checkJourney(t *testing.T, pod trace.Pod, connection trace.Connection, class trace.Class) {
	t.Helper()
	journey := trace.Walk(pod, connection)
	got, want := wayOf(&journey), wayOf(&class.Journeys[0])
	if slices.Contains([]uint16{15001, 15006, 15053}, connection.Packet.DstPort) { // a port may be the packet's own
		got.same, want.same = got.text, want.text
	}
	if got.same != want.same {
		t.Fatalf("%s: %s goes\n%s, and its class, of %s,\n%s", pod.Name, connection.Packet, got.same,
			class.Journeys[0].Connection.Packet, want.same)
	}
}

// unsendable reports whether nobody sends a packet: not from outside with an address of the pod.
func unsendable(packet ruleset.Packet, family ruleset.Family) bool {
	own := []string{"10.0.0.1", "fd00::1", "::6"}
	return packet.Direction == ruleset.In && slices.Contains(own, packet.Src.String()) ||
		family == ruleset.IPv6 && packet.Dst.String() == "::6"
}

// TestDiff names the differences of two pods.
func TestDiff(t *testing.T) {
	for _, test := range []struct {
		old, fresh string
		want       []string // each of one difference: whose, the set, the new way
	}{
		{"-m REDIRECT", "-m REDIRECT", nil},
		{"-m REDIRECT -o 25 -o 80", "-m REDIRECT -o 25,80", nil},
		{"-m REDIRECT", "-m REDIRECT -d 15090,15021,15020,8080", []string{"outside tcp to port 8080: to the pod, past the proxy"}},
		{"-m REDIRECT", "-m REDIRECT -x 192.0.2.0/24", []string{
			"app tcp of uid all but 1337 of gid all but 1337 to 192.0.2.0/24: out, past the proxy",
		}},
	} {
		var got []string
		for _, d := range Diff(wanted(t, test.old), wanted(t, test.fresh)) {
			if d.to != toLo {
				got = append(got, fmt.Sprintf("%s %s: %s", d.Example.Connection.From, d.Example.Set, d.New))
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s and %s: %q, want %q", test.old, test.fresh, got, test.want)
		}
	}
}

func thousandPrefixes() string {
	prefixes := make([]string, 1000)
	for i := range prefixes {
		prefixes[i] = fmt.Sprintf("10.%d.%d.0/24", i/100, 2*(i%100))
	}
	return "-m REDIRECT -x " + strings.Join(prefixes, ",")
}

func BenchmarkProve(b *testing.B) {
	for name, args := range map[string]string{"redirect": "-m REDIRECT", "tproxy": "-m TPROXY", "1000 prefixes": thousandPrefixes()} {
		b.Run(name, func(b *testing.B) {
			pod := wanted(b, args)
			classes := 0
			for b.Loop() {
				classes = 0
				for _, s := range Prove(pod).Statements {
					classes = max(classes, s.Classes)
				}
			}
			b.ReportMetric(float64(classes), "classes")
			b.ReportAllocs()
		})
	}
}

func BenchmarkDiff(b *testing.B) {
	for name, args := range map[string][2]string{"mode": {"-m REDIRECT", "-m TPROXY"}, "same": {"-m REDIRECT", "-m REDIRECT"},
		"1000 prefixes": {"-m REDIRECT", thousandPrefixes()}, "1000 same prefixes": {thousandPrefixes(), thousandPrefixes()}} {
		b.Run(name, func(b *testing.B) {
			old, fresh := wanted(b, args[0]), wanted(b, args[1])
			for b.Loop() {
				Diff(old, fresh)
			}
			b.ReportAllocs()
		})
	}
}
