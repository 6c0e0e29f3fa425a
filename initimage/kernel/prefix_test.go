package kernel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// piecewise is a Fake whose routing changes piece by piece, in the order in which Host changes it:
// the kernel takes each address, route and rule by itself. So the states between its effects are
// all that a killed run can leave behind.
type piecewise struct {
	*Fake
	*script
}

// script says which effects fail, of a namespace by all its backends.
type script struct {
	// failOnce, from 1, is an effect that fails while those after it succeed. 0 is never.
	failOnce int
	// after is called when an effect has changed something.
	after func()
	// known is what reading gave, by the tables that were read: printing and parsing
	// them again for each of a hundred runs takes most of the time. No effect changes
	// a list of tables, it makes another.
	known map[*ruleset.Table]ruleset.RuleSet
}

// arm makes the next effect number 1.
func (p *piecewise) arm(failOnce int) { p.Effects, p.failOnce = 0, failOnce }

// try carries one effect of the Fake out, or makes it fail.
func (p *piecewise) try(do func() error) error {
	n := p.Effects + 1
	p.FailAt = 0
	if n == p.failOnce {
		p.FailAt = n
	}
	return do()
}

// write tries an effect that changes something.
func (p *piecewise) write(do func() error) error {
	err := p.try(do)
	if err == nil && p.after != nil {
		p.after()
	}
	return err
}

func (p *piecewise) Rules(ctx context.Context, family ruleset.Family) (rs ruleset.RuleSet, err error) {
	held := p.Sets[family].Tables
	if len(held) > 0 {
		if rs, known := p.known[&held[0]]; known {
			return rs, p.try(p.effect)
		}
	}
	err = p.try(func() error { rs, err = p.Fake.Rules(ctx, family); return err })
	if err == nil && len(held) > 0 && p.known != nil {
		p.known[&held[0]] = rs
	}
	return rs, err
}

func (p *piecewise) Formers() []Namespace {
	if p.Former == nil {
		return nil
	}
	return []Namespace{&piecewise{p.Former, p.script}}
}

func (p *piecewise) Replace(want []ruleset.RuleSet) error {
	return p.write(func() error { return p.Fake.Replace(want) })
}

func (p *piecewise) Routing(family ruleset.Family) (r ruleset.Routing, err error) {
	err = p.try(func() error { r, err = p.Fake.Routing(family); return err })
	return r, err
}

func (p *piecewise) DeleteTables(ctx context.Context, family ruleset.Family) error {
	return p.write(func() error { return p.Fake.DeleteTables(ctx, family) })
}

func (p *piecewise) Restore(ctx context.Context, tx Transaction) error {
	for _, table := range tx.Tables {
		one := Transaction{Family: tx.Family, Tables: []TableChange{table}}
		if err := p.write(func() error { return p.Fake.Restore(ctx, one) }); err != nil {
			return err
		}
	}
	return nil
}

func (p *piecewise) AddRouting(family ruleset.Family, add ruleset.Routing) error {
	return p.pieces(add, func(r ruleset.Routing) error { return p.Fake.AddRouting(family, r) })
}

func (p *piecewise) RemoveRouting(family ruleset.Family, remove ruleset.Routing) error {
	return p.pieces(remove, func(r ruleset.Routing) error { return p.Fake.RemoveRouting(family, r) })
}

func (p *piecewise) pieces(all ruleset.Routing, do func(ruleset.Routing) error) error {
	var parts []ruleset.Routing
	if all.Unreachable {
		parts = append(parts, cutOff)
	}
	for _, a := range all.Addresses {
		parts = append(parts, ruleset.Routing{Addresses: []netip.Prefix{a}})
	}
	for _, l := range all.Routes {
		parts = append(parts, ruleset.Routing{Routes: []ruleset.LocalRoute{l}})
	}
	for _, r := range all.Rules {
		parts = append(parts, ruleset.Routing{Rules: []ruleset.PolicyRule{r}})
	}
	for _, name := range all.Settings {
		parts = append(parts, ruleset.Routing{Settings: []string{name}})
	}
	for _, part := range parts {
		if err := p.write(func() error { return do(part) }); err != nil {
			return err
		}
	}
	return nil
}

// goal is the result that a run of shunt-init is to have.
type goal struct {
	name   string
	want   []ruleset.RuleSet
	native bool // no rules of iptables can do it
}

// goals returns every system, some with other arguments, and no rules at all.
func goals(t *testing.T) []goal {
	t.Helper()
	nothing := goal{name: "nothing"}
	for _, family := range ruleset.Families {
		nothing.want = append(nothing.want, ruleset.RuleSet{Family: family})
	}
	all := []goal{nothing}
	for _, text := range []string{
		"-m REDIRECT", "-m TPROXY", "-m TPROXY --no-conntrack --backend=nftables", "--system ambient", "--system legacy",
		"-m REDIRECT --redirect-dns --capture-all-dns",
		"-m TPROXY --redirect-dns --dns-servers 10.0.0.53,fd00::53",
		"--system ambient --redirect-dns --capture-all-dns",
		"-m TPROXY -t 7 -r 9 --capture-udp-ports 443 --reject-udp-ports 444 --drop-invalid",
		"-m REDIRECT -b 80 -i 10.0.0.0/8",                   // leaves IPv6 alone, but for the inbound port
		"-m REDIRECT --redirect-dns --dns-servers 10.9.9.9", // IPv4 has DNS rules, IPv6 has none
	} {
		spec, _, err := interception.ParseArgs(strings.Fields(text))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, goal{text, both(spec), spec.NoConntrack})
	}
	return all
}

// reach brings a namespace to a goal as shunt-init does.
func (g goal) reach(ns Namespace) error {
	if g.name == "nothing" {
		_, err := Remove(context.Background(), ns, ruleset.Families)
		return err
	}
	_, err := Apply(context.Background(), ns, g.want, true)
	return err
}

// kind is one of the ways in which a namespace gets from one goal to another: by one backend, or
// from one to another.
type kind struct {
	name         string
	native, from bool // the backend that is wanted, and the one before, has a native table
}

var kinds = []kind{
	{"iptables", false, false}, {"native", true, true},
	{"iptables to native", true, false}, {"native to iptables", false, true},
}

func (k kind) changesBackend() bool { return k.native != k.from }

// forEachPair runs a test from every goal to every other.
func forEachPair(t *testing.T, test func(t *testing.T, states reached, j judge, from, to goal)) {
	all := goals(t)
	packets := map[ruleset.Family][]ruleset.Packet{}
	for _, family := range ruleset.Families {
		packets[family] = packetsOf(t, family)
	}
	for _, k := range kinds {
		states := reached{kind: k, states: map[string]*Fake{}, known: map[*ruleset.Table]ruleset.RuleSet{}}
		goals := all
		if k.changesBackend() {
			goals = all[:5] // the way there is cut off whatever the goals are
		}
		for _, from := range goals {
			for _, to := range goals {
				possible := (k.from || !from.native) && (k.native || !to.native)
				if possible && (from.name != to.name || k.changesBackend()) {
					clear(states.known)
					j := newJudge(k, states.at(t, from), states.end(t, to), packets)
					t.Run(k.name+", "+from.name+" to "+to.name, func(t *testing.T) { test(t, states, j, from, to) })
				}
			}
		}
	}
}

// reached caches the states of goals; there are far fewer goals than runs.
type reached struct {
	kind   kind
	states map[string]*Fake
	known  map[*ruleset.Table]ruleset.RuleSet // of the runs of one pair
}

// at returns a namespace that has reached a goal by the backend before, with rules of others beside
// ours in iptables' tables.
func (r reached) at(t *testing.T, g goal) *piecewise {
	t.Helper()
	before := r.fresh(t, g, r.kind.from)
	if !r.kind.changesBackend() {
		return &piecewise{before, &script{known: r.known}}
	}
	now := &Fake{Sets: map[ruleset.Family]ruleset.RuleSet{}, IsNative: r.kind.native, Former: before, Faults: before.Faults}
	for family, rs := range before.Sets {
		now.Sets[family] = ruleset.RuleSet{Family: family, Routing: rs.Routing}
		before.Sets[family] = withoutRouting(rs)
	}
	return &piecewise{now, &script{known: r.known}}
}

// end returns the namespace as a run from nothing to a goal leaves it.
func (r reached) end(t *testing.T, g goal) *piecewise {
	t.Helper()
	ns := r.at(t, goal{name: "nothing"})
	if err := g.reach(ns); err != nil {
		t.Fatal(err)
	}
	return ns
}

// fresh returns a namespace that has reached a goal by one backend.
func (r reached) fresh(t *testing.T, g goal, native bool) *Fake {
	t.Helper()
	key := fmt.Sprint(g.name, native)
	if r.states[key] == nil {
		ns := &piecewise{NewFake(), &script{}}
		if !native {
			ns.Fake = beside(t)
		}
		ns.IsNative = native
		if err := g.reach(ns); err != nil {
			t.Fatal(err)
		}
		r.states[key] = ns.Fake
	}
	return &Fake{Sets: maps.Clone(r.states[key].Sets), IsNative: native, Faults: &Faults{}}
}

// beside returns a Fake in which others have rules that a walk can follow.
func beside(t *testing.T) *Fake {
	t.Helper()
	f := used(t)
	rs := f.Sets[ruleset.IPv4]
	rs.Tables = slices.DeleteFunc(rs.Tables, func(t ruleset.Table) bool { return t.Name == "filter" })
	f.Sets[ruleset.IPv4] = rs
	return f
}

// referenceHost is the pod that the reference packets meet.
var referenceHost = ruleset.Host{
	Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}, Uplink: "eth0",
}

// referencePackets are connections of every kind that the systems distinguish. POD, OUT, DNS, LO
// and SELF stand for an address of each family.
const referencePackets = `
in from=OUT tcp POD:80
in from=OUT tcp POD:8080
in from=OUT tcp POD:22
in from=OUT tcp POD:15008
in from=OUT tcp POD:15021
in from=OUT udp POD:443
in from=OUT udp POD:444
in from=OUT state=INVALID tcp POD:8080
in from=OUT state=ESTABLISHED tcp POD:8080
out tcp OUT:80
out tcp OUT:443
out tcp OUT:53
out udp OUT:53
out udp DNS:53
out tcp DNS:53
out udp OUT:123
out uid=0 gid=0 tcp OUT:80
out uid=1337 gid=1337 tcp OUT:80
out uid=1000 gid=1337 tcp OUT:80
out uid=1337 gid=1337 udp OUT:53
out mark=0x539 tcp OUT:80
out mark=0x539 udp OUT:53
out mark=0x53f tcp OUT:80
out mark=0x53c tcp OUT:40000
out tcp LO:8080
out tcp POD:8080
out uid=1337 gid=1337 tcp POD:8080
out uid=1337 gid=1337 from=SELF tcp POD:8080
out uid=1337 gid=1337 from=SELF if=lo tcp POD:8080
out if=lo tcp POD:8080
out uid=1337 gid=1337 mark=0x539 from=OUT tcp POD:8080
out connmark=0x539 state=ESTABLISHED tcp OUT:40000
out connmark=0x111 state=ESTABLISHED tcp OUT:40000
out connmark=7 state=ESTABLISHED tcp OUT:40000
`

func packetsOf(t *testing.T, family ruleset.Family) []ruleset.Packet {
	t.Helper()
	v4 := strings.NewReplacer("POD", "10.0.0.1", "OUT", "10.0.0.9", "DNS", "10.0.0.53", "LO", "127.0.0.1", "SELF", "127.0.0.6")
	v6 := strings.NewReplacer("=OUT", "=fd00::9", "=SELF", "=::6",
		"POD", "[fd00::1]", "OUT", "[fd00::9]", "DNS", "[fd00::53]", "LO", "[::1]")
	text := map[ruleset.Family]*strings.Replacer{ruleset.IPv4: v4, ruleset.IPv6: v6}[family].Replace(referencePackets)
	var all []ruleset.Packet
	for line := range strings.Lines(strings.TrimSpace(text)) {
		p, err := ruleset.ParsePacket(line)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// outcomes returns where every reference packet of one family ends, with the rules of all backends.
func (p *piecewise) outcomes(family ruleset.Family, packets []ruleset.Packet) []ruleset.Outcome {
	sets := []ruleset.RuleSet{p.Sets[family]}
	if p.Former != nil {
		sets = append(sets, p.Former.Sets[family])
	}
	stack := ruleset.NewStack(p.Sets[family].Routing, sets...)
	ends := make([]ruleset.Outcome, len(packets))
	for i, packet := range packets {
		ends[i] = stack.Trace(referenceHost, packet, nil).Outcome
	}
	return ends
}

// posture is what one family does with its packets.
type posture string

const (
	asBefore posture = "as before"
	asAfter  posture = "as after"
	cutAway  posture = "cut off"
	halfOpen posture = "half open"
)

// judge knows the postures of one pair of goals.
type judge struct {
	kind          kind
	packets       map[ruleset.Family][]ruleset.Packet
	before, after map[ruleset.Family][]ruleset.Outcome
}

func newJudge(k kind, start, end *piecewise, packets map[ruleset.Family][]ruleset.Packet) judge {
	j := judge{k, packets, map[ruleset.Family][]ruleset.Outcome{}, map[ruleset.Family][]ruleset.Outcome{}}
	for _, family := range ruleset.Families {
		j.before[family] = start.outcomes(family, j.packets[family])
		j.after[family] = end.outcomes(family, j.packets[family])
	}
	return j
}

// changes reports whether the packets of a family end elsewhere afterwards.
func (j judge) changes(family ruleset.Family) bool {
	return !slices.Equal(j.before[family], j.after[family])
}

// equal reports whether all packets end where they are wanted. Those that a native backend routes
// apart before its rules are there, or still does after they are gone, may be as before and as
// after: only a proxy of Shunt has such packets, and without rules it has no work.
func (j judge) equal(family ruleset.Family, now, wanted []ruleset.Outcome) bool {
	for i, packet := range j.packets[family] {
		apart := j.kind.native && (packet.Mark != 0 || packet.Interface == "lo" && packet.Src.IsValid())
		between := now[i] == j.before[family][i] || now[i] == j.after[family][i]
		if now[i] != wanted[i] && (!apart || !between) {
			return false
		}
	}
	return true
}

// posture returns what a family does. If it is half open, why names the packet.
func (j judge) posture(ns *piecewise, family ruleset.Family) (p posture, why string) {
	now := ns.outcomes(family, j.packets[family])
	switch {
	case ns.Sets[family].Routing.Unreachable:
		for i, packet := range j.packets[family] {
			if crosses(packet, now[i]) {
				return halfOpen, fmt.Sprintf("cut off, but %s: %s", packet, now[i])
			}
		}
		return cutAway, ""
	case j.equal(family, now, j.before[family]):
		return asBefore, ""
	case j.equal(family, now, j.after[family]):
		return asAfter, ""
	}
	for i, packet := range j.packets[family] {
		if now[i] != j.before[family][i] {
			why += fmt.Sprintf("%s: %s, before %s, after %s\n", packet, now[i], j.before[family][i], j.after[family][i])
		}
	}
	return halfOpen, why
}

// crosses reports whether a packet gets to or from outside.
func crosses(p ruleset.Packet, end ruleset.Outcome) bool {
	if p.Direction == ruleset.In {
		return end.Fate != ruleset.Dropped && end.Fate != ruleset.Rejected
	}
	outside := !p.Dst.IsLoopback() && !slices.Contains(referenceHost.Addresses, p.Dst)
	return outside && (end.Fate == ruleset.Direct || end.Fate == ruleset.Unknown)
}

// check compares what a namespace does with what Apply promises: each family is as before, as after
// or cut off; and if one that changes is as after, no other is still as before.
func (j judge) check(ns *piecewise) (seen []posture, err error) {
	byPosture := map[posture]ruleset.Family{}
	for _, family := range ruleset.Families {
		p, why := j.posture(ns, family)
		seen = append(seen, p)
		if p == halfOpen {
			return seen, fmt.Errorf("%s is half open: %s", family, why)
		}
		if j.changes(family) {
			byPosture[p] = family
		}
	}
	if len(byPosture) == len(ruleset.Families) && byPosture[asBefore] != byPosture[asAfter] &&
		byPosture[asBefore] != 0 && byPosture[asAfter] != 0 {
		return seen, fmt.Errorf("%s is as after while %s is still as before", byPosture[asAfter], byPosture[asBefore])
	}
	return seen, nil
}

// copied returns the namespace as it is.
func (p *piecewise) copied() *piecewise {
	now := *p.Fake
	now.Sets, now.Faults = maps.Clone(now.Sets), &Faults{}
	if p.Former != nil {
		now.Former = &Fake{Sets: maps.Clone(p.Former.Sets), IsNative: p.Former.IsNative, Faults: now.Faults}
	}
	return &piecewise{&now, &script{known: p.known}}
}

// TestEveryPrefixIsSafe kills a run from every goal to every other after each effect that changes
// something. What is left must be safe, and the next run must end like a fresh one.
func TestEveryPrefixIsSafe(t *testing.T) {
	t.Parallel()
	kills, seen := 0, map[posture]int{}
	forEachPair(t, func(t *testing.T, states reached, j judge, from, to goal) {
		fresh, ns := dump(t, states.end(t, to).Fake), states.at(t, from)
		left := []*piecewise{ns.copied()} // by a run that is killed before or after an effect
		ns.after = func() { left = append(left, ns.copied()) }
		if err := to.reach(ns); err != nil {
			t.Fatal(err)
		}
		for n, ns := range left {
			kills++
			postures, err := j.check(ns)
			if err != nil {
				t.Fatalf("killed after %d effects: %v", n, err)
			}
			for _, p := range postures {
				seen[p]++
			}
			if err := to.reach(ns); err != nil {
				t.Fatalf("killed after %d effects, the next run fails: %v", n, err)
			}
			if diff := cmp.Diff(fresh, dump(t, ns.Fake)); diff != "" {
				t.Fatalf("killed after %d effects, after the next run (-fresh +got):\n%s", n, diff)
			}
		}
	})
	t.Logf("%d kills; postures of families: %v", kills, seen)
	for _, p := range []posture{asBefore, asAfter, cutAway} {
		if seen[p] == 0 {
			t.Errorf("no kill left a family %s: the test sees too little", p)
		}
	}
}

// TestEveryFailureIsUndone makes each effect of a run from every goal to every other fail. The
// namespace must end exactly as it was, and be safe at every moment until then, even if the run is
// killed while it undoes the change.
func TestEveryFailureIsUndone(t *testing.T) {
	t.Parallel()
	failures := 0
	forEachPair(t, func(t *testing.T, states reached, j judge, from, to goal) {
		before := dump(t, states.at(t, from).Fake)
		for n := 1; ; n++ {
			ns := states.at(t, from)
			ns.after = func() {
				if ns.Effects < n {
					return // a prefix, which TestEveryPrefixIsSafe covers
				}
				if _, err := j.check(ns); err != nil {
					t.Fatalf("effect %d failed, at effect %d: %v", n, ns.Effects, err)
				}
			}
			ns.arm(n)
			err := to.reach(ns)
			if err == nil {
				break
			}
			failures++
			if !errors.Is(err, ErrFake) || errors.Is(err, ErrApply) == errors.Is(err, ErrPreflight) {
				t.Fatalf("effect %d failed: error %v", n, err)
			}
			if diff := cmp.Diff(before, dump(t, ns.Fake)); diff != "" {
				t.Fatalf("effect %d failed (-before +after):\n%s", n, diff)
			}
		}
	})
	t.Logf("%d failures undone", failures)
	if failures == 0 {
		t.Error("nothing failed")
	}
}

// TestOthersMoveIn adds a rule of others to each table that Shunt made. The tables are theirs then,
// and Remove leaves nothing of Shunt's in them.
func TestOthersMoveIn(t *testing.T) {
	for _, goal := range goals(t) {
		ns := reached{states: map[string]*Fake{}}.at(t, goal)
		made := 0
		for _, family := range ruleset.Families {
			for _, table := range ns.Sets[family].Tables {
				tx := Transaction{Family: family, Tables: []TableChange{{Table: table.Name, Steps: []Step{
					{Command: AppendRule, Chain: "POSTROUTING", Rule: ruleset.Rule{Target: ruleset.Accept}},
				}}}}
				if err := ns.Restore(context.Background(), tx); err != nil {
					t.Fatal(err)
				}
				made++
			}
		}
		if _, err := Remove(context.Background(), ns, ruleset.Families); err != nil {
			t.Fatalf("%s: %v", goal.name, err)
		}
		left := dump(t, ns.Fake)
		if strings.Contains(left, ruleset.ChainPrefix) || strings.Count(left, "-A POSTROUTING -j ACCEPT") != made {
			t.Errorf("%s: after Remove, with %d rules of others in its tables:\n%s", goal.name, made, left)
		}
		if result, err := Remove(context.Background(), ns, ruleset.Families); err != nil || result.Changed {
			t.Errorf("%s: the second Remove: changed %t, error %v", goal.name, result.Changed, err)
		}
	}
}
