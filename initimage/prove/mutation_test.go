package prove

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
	"github.com/shunt-dev/shunt/test/rules"
)

// mutant is a side with one change.
type mutant struct {
	name string
	side trace.Side
}

// mutantsOf changes the rules and the routing of a side, one change each: the same as those that
// verification has to find in a real namespace.
func mutantsOf(side trace.Side) []mutant {
	var all []mutant
	set := side.Sets[0]
	change := func(name string, table, chain int, rules func(old []ruleset.Rule) []ruleset.Rule) {
		mutated := set
		mutated.Tables = slices.Clone(set.Tables)
		mutated.Tables[table].Chains = slices.Clone(set.Tables[table].Chains)
		of := &mutated.Tables[table].Chains[chain]
		of.Rules = rules(slices.Clone(of.Rules))
		changed := side
		changed.Sets = []ruleset.RuleSet{mutated}
		all = append(all, mutant{fmt.Sprintf("%s %s %s: %s", side.Family, set.Tables[table].Name, of.Name, name), changed})
	}
	for t := range set.Tables {
		for c := range set.Tables[t].Chains {
			for i, rule := range set.Tables[t].Chains[c].Rules {
				change(fmt.Sprintf("%d deleted: %s", i+1, rule), t, c, func(old []ruleset.Rule) []ruleset.Rule {
					return slices.Delete(old, i, i+1)
				})
				change(fmt.Sprintf("ACCEPT before %d: %s", i+1, rule), t, c, func(old []ruleset.Rule) []ruleset.Rule {
					return slices.Insert(old, i, ruleset.Rule{Target: ruleset.Accept})
				})
				change(fmt.Sprintf("%d twice: %s", i+1, rule), t, c, func(old []ruleset.Rule) []ruleset.Rule {
					return slices.Insert(old, i, rule)
				})
				change(fmt.Sprintf("%d swapped: %s", i+1, rule), t, c, func(old []ruleset.Rule) []ruleset.Rule {
					j := (i + 1) % len(old)
					old[i], old[j] = old[j], old[i]
					return old
				})
				if n := len(rule.Matches); n > 0 {
					change(fmt.Sprintf("%d without its last match: %s", i+1, rule), t, c, func(old []ruleset.Rule) []ruleset.Rule {
						old[i].Matches = slices.Clone(rule.Matches[:n-1])
						return old
					})
				}
			}
		}
	}
	routing := func(name string, change func(r *ruleset.Routing)) {
		changed := side
		changed.Routing = ruleset.Routing{Addresses: slices.Clone(side.Routing.Addresses), Rules: slices.Clone(side.Routing.Rules),
			Routes: slices.Clone(side.Routing.Routes)}
		change(&changed.Routing)
		all = append(all, mutant{side.Family.String() + " " + name, changed})
	}
	routing("cut off", func(r *ruleset.Routing) { r.Unreachable = true })
	for i := range side.Routing.Addresses {
		routing("address deleted", func(r *ruleset.Routing) { r.Addresses = slices.Delete(r.Addresses, i, i+1) })
	}
	for i, rule := range side.Routing.Rules {
		routing("policy rule deleted: "+rule.String(), func(r *ruleset.Routing) { r.Rules = slices.Delete(r.Rules, i, i+1) })
		if rule.OutInterface != "" {
			routing("policy rule for every socket: "+rule.String(), func(r *ruleset.Routing) { r.Rules[i].OutInterface = "" })
		}
	}
	for i := range side.Routing.Routes {
		routing("route moved", func(r *ruleset.Routing) { r.Routes[i].Table = 4242 })
	}
	return all
}

// randomPacket draws any packet, from what rules name and what they do not.
func randomPacket(r *rand.Rand, pod *trace.Pod, family ruleset.Family) ruleset.Packet {
	packet := randomConnection(r, pod, family).Packet
	marks := []uint32{0, 0, 0x539, 0x53a, 0x111, 1}
	packet.Mark, packet.ConnMark = marks[r.IntN(len(marks))], marks[r.IntN(len(marks))]
	states := []ruleset.State{ruleset.New, ruleset.New, ruleset.Established, ruleset.Invalid, ruleset.Related}
	packet.State = states[r.IntN(len(states))]
	if packet.Direction == ruleset.In {
		packet.Mark, packet.Interface = 0, []string{"eth0", "net1"}[r.IntN(2)]
		return packet
	}
	packet.Interface = []string{"", "", "lo"}[r.IntN(3)]
	if packet.Interface != "" || r.IntN(3) == 0 {
		hosts := map[ruleset.Family][]string{
			ruleset.IPv4: {"127.0.0.6", "192.0.2.1", "10.0.0.1"}, ruleset.IPv6: {"::6", "2001:db8::1", "fd00::1"},
		}[family]
		packet.Src = netip.MustParseAddr(hosts[r.IntN(len(hosts))])
	}
	return packet
}

// differ reports whether a packet, or the answer to it, goes another way.
func differ(old, fresh *trace.Side, packet ruleset.Packet) bool {
	var texts [2]string
	for i, side := range []*trace.Side{old, fresh} {
		stack := ruleset.NewStack(side.Routing, side.Sets...)
		path := stack.Trace(side.Walked(), packet, nil)
		texts[i] = packetWay(packet, path)
	}
	return texts[0] != texts[1]
}

// checkSame checks that no random packet goes another way in a mutant of which Diff says so.
func checkSame(t *testing.T, m mutant, original *trace.Side, packets int, random func() ruleset.Packet) {
	t.Helper()
	for range packets {
		if p := random(); differ(original, &m.side, p) {
			t.Errorf("%s: Diff finds nothing, but %s goes another way", m.name, p)
			return
		}
	}
}

// checkDifferent checks that the example of each difference goes another way.
func checkDifferent(t *testing.T, m mutant, original, mutated trace.Pod, differences []Difference) {
	t.Helper()
	for _, d := range differences {
		connection := d.Example.Connection
		old, fresh := trace.Walk(original, connection), trace.Walk(mutated, connection)
		if !d.Unknown && wayOf(&old).same == wayOf(&fresh).same &&
			!differ(original.Side(m.side.Family), &m.side, connection.Packet) {
			t.Errorf("%s: %s goes the same way in both\n- %s\n+ %s", m.name, connection.Packet, d.Old, d.New)
		}
	}
}

// TestMutants changes the rules of the corpus, one by one. A mutant that changes the way of a packet
// must be found by Diff, and the example that Diff gives must go another way.
func TestMutants(t *testing.T) {
	cases, err := rules.Load("../../test/rules/testdata/cases")
	if err != nil {
		t.Fatal(err)
	}
	stride, packets := 293, 100
	if os.Getenv("LONG") == "true" {
		stride = 53
	}
	mutants, different, refuted, done := 0, 0, 0, map[string]bool{}
	for _, test := range cases {
		spec, opts, err := interception.ParseArgs(test.Args)
		text := strings.Join(interception.Args(spec, opts), " ")
		if err != nil || done[text] {
			continue
		}
		done[text] = true
		pod := trace.Wanted(test.Name, spec, ruleset.Families)
		r := rand.New(rand.NewPCG(17, uint64(len(done))))
		for i := range pod.Sides {
			for _, m := range mutantsOf(pod.Sides[i]) {
				if mutants++; mutants%stride != 0 {
					continue
				}
				mutated := pod
				mutated.Sides = slices.Clone(pod.Sides)
				mutated.Sides[i] = m.side
				m.name = test.Name + ": " + m.name
				differences := Diff(pod, mutated)
				if len(differences) == 0 {
					checkSame(t, m, &pod.Sides[i], packets, func() ruleset.Packet { return randomPacket(r, &pod, pod.Sides[i].Family) })
					continue
				}
				different++
				if result := Prove(mutated); !holds(result) {
					refuted++
				}
				checkDifferent(t, m, pod, mutated, differences)
			}
		}
	}
	t.Logf("of %d mutants %d were tried: %d change the way of a packet, and of these %d are also refuted by Prove",
		mutants, mutants/stride, different, refuted)
	if different == 0 {
		t.Error("no mutant changes anything")
	}
}
