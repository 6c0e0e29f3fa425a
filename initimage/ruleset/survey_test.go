package ruleset_test

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// generator writes random rules in iptables' words. It draws from few values, so that rules meet.
type generator struct{ *rand.Rand }

func (g generator) one(of ...string) string { return of[g.IntN(len(of))] }

// not negates now and then.
func (g generator) not() string { return g.one("", "", "! ") }

// prefix is one around the addresses that packets are drawn from.
func (g generator) prefix(family ruleset.Family) string {
	if family == ruleset.IPv6 {
		return g.one("fd00::/8", "fd00::1/128", "fd00:1::/32", "::1/128", "::6/128", "2001:db8::/32", "::ffff:0:0/96", "fe80::/10", "::/1")
	}
	return g.one("10.0.0.0/8", "10.0.0.1/32", "10.1.0.0/16", "127.0.0.1/32", "127.0.0.6/32", "192.0.2.0/24", "0.0.0.0/32", "127.0.0.0/8",
		"0.0.0.0/1")
}

func (g generator) mark() string {
	return g.one("0x539", "0x53a", "0x1/0x1", "0x10/0xf0", "0x111/0xfff", "0x0", "0x500/0xff00")
}

func (g generator) match(family ruleset.Family, chain string) string {
	options := []string{
		g.not() + "-s " + g.prefix(family), g.not() + "-d " + g.prefix(family), g.not() + "-p " + g.one("tcp", "udp"),
		"-p tcp -m tcp " + g.not() + "--dport " + g.one("80", "0:1023", "15006", "53", "443:8080"),
		"-p udp -m udp " + g.not() + "--sport " + g.one("53", "1024:65535", "15053"),
		"-p tcp -m multiport " + g.not() + "--dports " + g.one("22,80,443", "15000:15100,9090", "1:3,5,7:9"),
		"-p tcp -m tcp " + g.not() + "--tcp-flags FIN,SYN,RST,ACK SYN",
		"-m mark " + g.not() + "--mark " + g.mark(), "-m connmark " + g.not() + "--mark " + g.mark(),
		"-m addrtype " + g.not() + g.one("--src-type", "--dst-type") + " LOCAL",
		"-m conntrack " + g.not() + "--ctstate " + g.one("NEW", "INVALID", "RELATED,ESTABLISHED", "NEW,UNTRACKED"),
	}
	if chain != "OUTPUT" && chain != "POSTROUTING" {
		options = append(options, g.not()+"-i "+g.one("lo", "eth0", "eth+", "net1", "+"))
	}
	if chain != "PREROUTING" && chain != "INPUT" {
		options = append(options, g.not()+"-o "+g.one("lo", "eth0", "eth+"),
			"-m owner "+g.not()+g.one("--uid-owner", "--gid-owner")+" "+g.one("0", "1337", "1000-2000", "1337"))
	}
	return g.one(options...)
}

func (g generator) target(family ruleset.Family, table, chain string) string {
	targets := []string{"ACCEPT", "RETURN", "RETURN", "ONE", "TWO", "ONE", "TWO"}
	switch table {
	case "raw":
		targets = append(targets, "CT --notrack", "CT --zone 1", "DROP")
	case "mangle":
		targets = append(targets, "DROP", "MARK --set-xmark "+g.mark(), "MARK --set-mark "+g.mark(), "MARK --xor-mark 0x10",
			"CONNMARK --set-xmark "+g.mark(), "CONNMARK --save-mark", "CONNMARK --restore-mark",
			"CONNMARK --save-mark --nfmask 0xf0 --ctmask 0xffffffff", "CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff")
		if chain == "PREROUTING" {
			targets = append(targets, "TPROXY --on-port 15006 --tproxy-mark "+g.one("0x0/0x0", "0x539", "0x1/0x1"))
		}
	case "nat":
		targets = append(targets, "REDIRECT --to-ports 15001", "REDIRECT --to-ports 15006", "REDIRECT",
			"DNAT --to-destination "+g.one(map[ruleset.Family][]string{
				ruleset.IPv4: {"10.0.0.9:80", "127.0.0.1", "10.0.0.1:15006", "0.0.0.0"},
				ruleset.IPv6: {"[fd00::9]:80", "::1", "[fd00::1]:15006"}}[family]...))
	case "filter":
		targets = append(targets, "DROP", "REJECT")
	}
	return g.one(targets...)
}

// rules is a rule set: each table has built-in chains and two that they jump to.
func (g generator) rules(family ruleset.Family) string {
	var b strings.Builder
	chains := map[string][]string{"raw": {"PREROUTING", "OUTPUT"}, "mangle": {"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"},
		"nat": {"PREROUTING", "OUTPUT"}, "filter": {"INPUT", "OUTPUT", "FORWARD"}}
	for _, table := range []string{"raw", "mangle", "nat", "filter"} {
		if g.IntN(4) == 0 {
			continue
		}
		fmt.Fprintf(&b, "*%s\n:ONE - [0:0]\n:TWO - [0:0]\n", table)
		add := func(chain string, n int, target func() string) {
			for range n {
				b.WriteString("-A " + chain)
				for range g.IntN(3) {
					b.WriteString(" " + g.match(family, chain))
				}
				b.WriteString(" -j " + target() + "\n")
			}
		}
		for _, chain := range chains[table] {
			add(chain, g.IntN(4), func() string { return g.target(family, table, chain) })
		}
		in := g.one(chains[table]...) // a target of ONE and TWO has to fit each hook, so they have few
		last := func() string {
			return strings.NewReplacer("ONE", "RETURN", "TWO", "ACCEPT", "TPROXY", "X").Replace(
				g.target(family, table, map[bool]string{true: "OUTPUT"}[in != ""]))
		}
		add("ONE", g.IntN(4), last)
		add("TWO", g.IntN(3), last)
		b.WriteString("COMMIT\n")
	}
	fmt.Fprintf(&b, "# ip -%d route add local default dev lo table 133\n", family)
	for range g.IntN(3) {
		fmt.Fprintf(&b, "# ip -%d rule add %sfwmark %s lookup 133\n", family,
			g.one("", "from "+g.prefix(family)+" ", "from "+g.prefix(family)+" oif lo "),
			g.one("0x539/0xffffffff", "0x1/0x1", "0x111/0xfff"))
	}
	return b.String()
}

// packet is a random one of a direction, drawn from the edges of what rules name.
func (g generator) packet(family ruleset.Family, direction ruleset.Direction) ruleset.Packet {
	addresses := []string{"10.0.0.1", "10.0.0.9", "10.1.0.0", "10.1.255.255", "10.2.0.0", "127.0.0.1", "127.0.0.6", "127.0.0.7", "0.0.0.0",
		"192.0.2.1", "192.0.3.0", "11.0.0.0", "255.255.255.255", "128.0.0.0"}
	if family == ruleset.IPv6 {
		addresses = []string{"fd00::1", "fd00::9", "fd00:1::", "fd00:1:ffff:ffff:ffff:ffff:ffff:ffff", "fd00:2::", "::1", "::6", "::",
			"2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "fe80::1", "8000::"}
	}
	ports := []uint16{0, 22, 53, 54, 79, 80, 81, 443, 8080, 8081, 15000, 15001, 15006, 15053, 15101, 65535}
	ids := []uint32{0, 1, 999, 1000, 1337, 1338, 2000, 2001, 1<<32 - 1}
	marks := []uint32{0, 1, 0x10, 0x111, 0x539, 0x53a, 0x53b, 0x1539, 0x80000111, 1<<32 - 1}
	return ruleset.Packet{
		Direction: direction, Family: family, Protocol: g.one("tcp", "udp"),
		Src: netip.MustParseAddr(g.one(addresses...)), Dst: netip.MustParseAddr(g.one(addresses...)),
		SrcPort: ports[g.IntN(len(ports))], DstPort: ports[g.IntN(len(ports))], UID: ids[g.IntN(len(ids))], GID: ids[g.IntN(len(ids))],
		Mark: marks[g.IntN(len(marks))], ConnMark: marks[g.IntN(len(marks))],
		Interface: map[ruleset.Direction]string{ruleset.In: g.one("eth0", "net1", "other0"), ruleset.Out: g.one("", "", "lo")}[direction],
		State:     ruleset.State(g.one("NEW", "NEW", "ESTABLISHED", "INVALID", "RELATED", "UNTRACKED")),
	}
}

// everything is the box of all packets of a direction.
func everything(space *ruleset.Space, direction ruleset.Direction, chosen bool) ruleset.Box {
	values := map[ruleset.Field]ruleset.Values{ruleset.FieldInterface: space.From()}
	for _, f := range []ruleset.Field{ruleset.FieldProtocol, ruleset.FieldState, ruleset.FieldUID, ruleset.FieldGID, ruleset.FieldSrc,
		ruleset.FieldDst, ruleset.FieldSrcPort, ruleset.FieldDstPort} {
		if f != ruleset.FieldSrc || !chosen {
			values[f] = space.All(f)
		}
	}
	if direction == ruleset.Out {
		values[ruleset.FieldInterface] = space.OfInterface("").Or(space.OfInterface("lo"))
	}
	return space.Box(values).WithMarks(false).WithMarks(true)
}

// way is how a packet goes.
type way struct {
	text string
	port uint16
	kept bool // the port is the packet's own
}

// waysOf says how a packet and then the answer to it go.
func waysOf(stack *ruleset.Stack, packet ruleset.Packet) [2]way {
	var ways [2]way
	for i := range ways {
		path := stack.Trace(pod, packet, nil)
		ways[i] = way{fmt.Sprintln(path.Outcome.Fate, "zone", path.Zone, "untracked", path.Untracked), path.Outcome.Port,
			path.Outcome.Port == packet.DstPort}
		for _, s := range path.Steps {
			ways[i].text += s.String() + "\n"
		}
		packet = path.Answer
	}
	return ways
}

// same reports whether two packets go the same way: the same steps to the same end. A port that no
// rule sets is the packet's own.
func same(a, b [2]way) bool {
	for i := range a {
		if a[i].text != b[i].text || a[i].port != b[i].port && (!a[i].kept || !b[i].kept) {
			return false
		}
	}
	return true
}

// survey divides a box by the way of a packet and of the answer to it.
func survey(stack *ruleset.Stack, box ruleset.Box, template ruleset.Packet) (classes []ruleset.Box, examples []ruleset.Packet) {
	all := ruleset.NewSurvey(box)
	for all.Next() {
		first := all.Flow(template)
		_, answer := all.Walk(stack, &pod, &first)
		all.Walk(stack, &pod, &answer)
		if all.Mixed() {
			return nil, nil
		}
		classes, examples = append(classes, all.Class()), append(examples, first.Packet)
	}
	return classes, examples
}

// checkCover checks that classes have as many packets as the box together, and their own examples.
func checkCover(t *testing.T, rules string, box ruleset.Box, classes []ruleset.Box, examples []ruleset.Packet) {
	t.Helper()
	volume := new(big.Int)
	for i, class := range classes {
		volume.Add(volume, class.Size())
		if !class.Contains(examples[i]) {
			t.Fatalf("%s is not in its own class\n%s", examples[i], rules)
		}
	}
	if volume.Cmp(box.Size()) != 0 {
		t.Fatalf("%d classes hold %s packets, of %s\n%s", len(classes), volume, box.Size(), rules)
	}
}

// checkClass checks that a packet is in one class, and goes as that does.
func checkClass(
	t *testing.T, rules string, stack *ruleset.Stack, packet ruleset.Packet, classes []ruleset.Box, examples []ruleset.Packet,
) {
	t.Helper()
	var in []int
	for i, class := range classes {
		if class.Contains(packet) {
			in = append(in, i)
		}
	}
	if len(in) != 1 {
		t.Fatalf("%+v is in %d classes\n%s", packet, len(in), rules)
	}
	example := examples[in[0]]
	if own, of := waysOf(stack, packet), waysOf(stack, example); !same(own, of) {
		t.Fatalf("the packet %+v goes\n%v\nand its class, of %+v,\n%v\n%s", packet, own, example, of, rules)
	}
}

// TestClassesOfRandomRules divides all packets by random rules. The classes must cover everything
// once, and any packet must go the way of its class: the same steps, and the same end, also of its
// answer.
func TestClassesOfRandomRules(t *testing.T) {
	sets, packets := 6, 100
	if os.Getenv("LONG") == "true" {
		sets = 80
	}
	classesInAll, compared, mixed := 0, 0, 0
	for seed := range sets {
		g := generator{rand.New(rand.NewPCG(uint64(seed), 17))}
		family := ruleset.Families[seed%2]
		text := g.rules(family)
		set, err := ruleset.Parse(family, text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		stack := ruleset.NewStack(set.Routing, set)
		space := ruleset.NewSpace(family, pod, stack)
		for _, direction := range []ruleset.Direction{ruleset.In, ruleset.Out} {
			chosen := direction == ruleset.Out && seed%3 == 0
			box := everything(space, direction, chosen)
			classes, examples := survey(stack, box, ruleset.Packet{Direction: direction})
			if classes == nil {
				mixed++
				continue
			}
			classesInAll += len(classes)
			checkCover(t, text, box, classes, examples)
			for range packets {
				packet := g.packet(family, direction)
				if chosen {
					packet.Src = netip.Addr{}
				}
				compared++
				checkClass(t, text, stack, packet, classes, examples)
			}
		}
	}
	t.Logf("%d rule sets, %d classes, %d packets compared, %d surveys with marks that mix", sets, classesInAll, compared, mixed)
	if mixed > sets/5 {
		t.Errorf("%d of %d surveys say nothing", mixed, 2*sets)
	}
}

// TestClassesAreDisjoint checks every two classes of a pod's rules.
func TestClassesAreDisjoint(t *testing.T) {
	spec, _, err := interception.ParseArgs(strings.Fields("-m TPROXY -o 25 -x 10.1.0.0/16,10.3.0.0/16 --redirect-dns --capture-all-dns"))
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range ruleset.Families {
		set := ruleset.Build(spec, family)
		stack := ruleset.NewStack(set.Routing, set)
		for _, direction := range []ruleset.Direction{ruleset.In, ruleset.Out} {
			box := everything(ruleset.NewSpace(family, pod, stack), direction, false)
			classes, _ := survey(stack, box, ruleset.Packet{Direction: direction})
			for i := range classes {
				for j := range classes[:i] {
					if !classes[i].Disjoint(classes[j]) {
						t.Fatalf("%v and %v overlap", classes[i], classes[j])
					}
				}
			}
			t.Logf("%s %s: %d classes", family, direction, len(classes))
		}
	}
}

func excluding(n int) string {
	prefixes := make([]string, n)
	for i := range prefixes {
		prefixes[i] = fmt.Sprintf("10.%d.%d.0/24", i/100, 2*(i%100))
	}
	return "-x " + strings.Join(prefixes, ",")
}

func BenchmarkSurvey(b *testing.B) {
	for name, args := range map[string]string{"default": "-m REDIRECT", "1000 prefixes": excluding(1000)} {
		b.Run(name, func(b *testing.B) {
			spec, _, err := interception.ParseArgs(strings.Fields(args))
			if err != nil {
				b.Fatal(err)
			}
			set := ruleset.Build(spec, ruleset.IPv4)
			stack := ruleset.NewStack(set.Routing, set)
			box := everything(ruleset.NewSpace(ruleset.IPv4, pod, stack), ruleset.Out, true)
			classes := 0
			for b.Loop() {
				found, _ := survey(stack, box, ruleset.Packet{Direction: ruleset.Out})
				classes = len(found)
			}
			b.ReportMetric(float64(classes), "classes")
			b.ReportAllocs()
		})
	}
}
