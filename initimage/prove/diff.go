package prove

import (
	"cmp"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// Difference is a set of connections that go one way in one pod, and another way in
// the other.
type Difference struct {
	Example  Example
	Families []ruleset.Family
	Old, New string // the ways, in plain English
	// Share is how much of all that the sender may open to such addresses goes
	// another way.
	Share *big.Rat
	// Unknown means that it is not known which way they go in one of the pods.
	Unknown bool

	boxes []ruleset.Box
	whole ruleset.Box
	to    target
	mark  uint32 // of the sender
}

// Comparison is two pods and their differences.
type Comparison struct {
	Old, New    trace.Pod
	Differences []Difference
}

// Compare compares two pods.
func Compare(old, fresh trace.Pod) Comparison { return Comparison{old, fresh, Diff(old, fresh)} }

// Diff compares two pods: which connections go another way, the largest sets first.
// If no connection does, it compares the way of every packet: with any mark and
// state, of sockets that are bound to lo, and of established connections.
//
// A family that one of the pods lacks has no rules there.
func Diff(old, fresh trace.Pod) []Difference {
	var all []Difference
	for _, family := range ruleset.Families {
		if old.Side(family) != nil || fresh.Side(family) != nil {
			all = append(all, diffFamily(withFamily(old, fresh, family), withFamily(fresh, old, family), family)...)
		}
	}
	var folded []Difference
	for _, d := range all {
		d.finish()
		i := slices.IndexFunc(folded, d.alike)
		if i < 0 {
			folded = append(folded, d)
		} else {
			folded[i].Families = append(folded[i].Families, d.Families...)
		}
	}
	slices.SortStableFunc(folded, func(a, b Difference) int {
		last := func(d Difference) int { return map[bool]int{true: 1}[d.to == toLo] } // few send there
		return cmp.Or(cmp.Compare(last(a), last(b)), b.Share.Cmp(a.Share))
	})
	return folded
}

// alike reports whether two differences are the same but for the family.
func (d *Difference) alike(other Difference) bool {
	a, b := d.Example, other.Example
	return d.Old == other.Old && d.New == other.New && a.Set == b.Set && a.Connection.From == b.Connection.From &&
		d.to == other.to && d.mark == other.mark && !slices.Contains(other.Families, d.Families[0])
}

// withFamily returns the pod with a side of the family: its own, or the other's
// without rules.
func withFamily(pod, other trace.Pod, family ruleset.Family) *trace.Pod {
	if pod.Side(family) == nil {
		pod.Sides = append(slices.Clone(pod.Sides), trace.Side{Family: family, Host: other.Side(family).Host})
	}
	return &pod
}

func diffFamily(old, fresh *trace.Pod, family ruleset.Family) []Difference {
	if old.Proxy == fresh.Proxy && sideText(old.Side(family)) == sideText(fresh.Side(family)) {
		return nil
	}
	found := differences{places: map[differenceKey]int{}}
	for _, sender := range newUniverse(family, []*trace.Pod{old, fresh}, ruleset.New).senders() {
		if sender.actor == trace.Outside && sender.to == toOthers {
			continue
		}
		for class := range sender.classes(old, fresh) {
			before, now := wayOf(&class.Journeys[0]), wayOf(&class.Journeys[1])
			if before.same != now.same || class.Mixed {
				found.add(sender, class.Box, started(&class.Journeys[0]), before.text, now.text,
					class.Mixed || class.Journeys[0].End.Kind == trace.EndUnknown || class.Journeys[1].End.Kind == trace.EndUnknown)
			}
		}
	}
	if len(found.all) == 0 {
		found.comparePackets(old, fresh, family)
	}
	return found.all
}

// sideText is all that decides which way packets go, as text.
func sideText(side *trace.Side) string {
	var b strings.Builder
	for _, set := range side.Sets {
		fmt.Fprintln(&b, set.Party, set)
		for _, table := range set.Tables {
			for _, chain := range table.Chains {
				if chain.Base != nil {
					fmt.Fprintf(&b, "%s %s %+v\n", table.Name, chain.Name, *chain.Base)
				}
			}
		}
	}
	fmt.Fprintf(&b, "%v\n%+v\n%v", ruleset.RuleSet{Family: side.Family, Routing: side.Routing}, side.Host, side.Unread)
	return b.String()
}

// cannotTell is the way of packets whose mark and whose connection's mark rules
// combine bit by bit.
const cannotTell = "it cannot be told: rules combine the packet's mark with that of its connection"

type differences struct {
	all    []Difference
	places map[differenceKey]int
}

type differenceKey struct {
	from     trace.Actor
	to       target
	mark     uint32
	old, new string
}

// add puts the sets together that differ alike.
func (d *differences) add(s sender, box ruleset.Box, connection trace.Connection, old, fresh string, unknown bool) {
	if old == fresh && unknown {
		old, fresh = cannotTell, cannotTell
	}
	key := differenceKey{s.actor, s.to, s.template.Mark, old, fresh}
	i, known := d.places[key]
	if !known {
		i = len(d.all)
		d.places[key] = i
		d.all = append(d.all, Difference{Example: Example{Connection: connection},
			Families: []ruleset.Family{s.box.Space().Family}, Old: old, New: fresh, whole: s.box, to: s.to, mark: s.template.Mark})
	}
	d.all[i].boxes, d.all[i].Unknown = append(d.all[i].boxes, box), d.all[i].Unknown || unknown
}

// finish describes the set and its size.
func (d *Difference) finish() {
	size := new(big.Int)
	for _, box := range d.boxes {
		size.Add(size, box.Size())
	}
	d.Share = new(big.Rat).SetFrac(size, d.whole.Size())
	boxes := ruleset.Join(d.boxes)
	slices.SortStableFunc(boxes, func(a, b ruleset.Box) int { return b.Size().Cmp(a.Size()) })
	d.Example.Set = describe(boxes, d.whole)
}

// started returns the connection of a journey, with the source that the kernel chose.
func started(j *trace.Journey) trace.Connection {
	connection := j.Connection
	connection.Packet = j.Legs[0].Packet
	return connection
}

// way is how a connection goes.
type way struct{ same, text string }

// wayOf says how a connection goes. Two go the same way if the same happens to each
// of their packets, whichever rules do it.
func wayOf(j *trace.Journey) way {
	var same strings.Builder
	first := j.Legs[0].Packet
	for _, leg := range j.Legs {
		outcome := leg.Path.Outcome
		if outcome.Port == leg.Packet.DstPort {
			outcome.Port = 0 // its own
		}
		fmt.Fprintln(&same, leg.From, leg.Answer, outcome, leg.Path.Untracked)
	}
	sees := ""
	if j.End.Sees.IsValid() && j.End.Sees != first.Src {
		sees = j.End.Sees.String()
	}
	fmt.Fprintln(&same, j.End.Kind, j.End.Proxied, sees)
	return way{same.String(), wayText(j, sees)}
}

// wayText says which way a connection goes, without its addresses.
func wayText(j *trace.Journey, sees string) string {
	past := "past the proxy"
	if j.End.Proxied {
		past = "through the proxy"
		if port := j.Legs[0].Path.Outcome.Port; port != 0 {
			past = fmt.Sprintf("through the proxy, port %d by %s", port, strings.ToUpper(string(j.Legs[0].Path.Outcome.Fate)))
		}
	}
	switch j.End.Kind {
	case trace.EndApp:
		if j.End.Proxied {
			if sees == "" {
				return past + ", to the pod, which sees the client's address"
			}
			return past + ", to the pod, which sees the proxy's address"
		}
		if outcome := j.Legs[0].Path.Outcome; outcome.Fate == ruleset.Redirected {
			return fmt.Sprintf("to port %d of the pod, which is not the proxy's", outcome.Port)
		}
		return "to the pod, " + past
	case trace.EndOutside:
		return "out, " + past
	case trace.EndBlocked:
		fate := j.Legs[len(j.Legs)-1].Path.Outcome.Fate
		if fate == ruleset.Dropped || fate == ruleset.Rejected {
			return map[ruleset.Fate]string{ruleset.Dropped: "dropped", ruleset.Rejected: "rejected"}[fate]
		}
		if fate == ruleset.Direct {
			return "not for this pod"
		}
		return "nowhere: it stays in the pod, where nothing waits for it"
	case trace.EndLoop:
		return past + ", and round for ever"
	case trace.EndLost:
		return past + ", and the answer is lost"
	}
	return "it is not known where"
}

// comparePackets compares single packets.
func (d *differences) comparePackets(old, fresh *trace.Pod, family ruleset.Family) {
	universe := newUniverse(family, []*trace.Pod{old, fresh}, ruleset.New, ruleset.Related, ruleset.Established, ruleset.Invalid)
	space := universe.space
	base := universe.base.With(ruleset.FieldHopPort, nil).With(ruleset.FieldSrc, space.All(ruleset.FieldSrc)).
		With(ruleset.FieldDst, space.All(ruleset.FieldDst)).WithMarks(true)
	process := base.With(ruleset.FieldUID, space.All(ruleset.FieldUID)).With(ruleset.FieldGID, space.All(ruleset.FieldGID)).
		With(ruleset.FieldInterface, space.OfInterface("").Or(space.OfInterface("lo"))).WithMarks(false)
	hosts := []ruleset.Host{old.Side(family).Walked(), fresh.Side(family).Walked()}
	var stacks []*ruleset.Stack
	for _, pod := range []*trace.Pod{old, fresh} {
		side := pod.Side(family)
		stacks = append(stacks, ruleset.NewStack(side.Routing, side.Sets...))
	}
	for _, sender := range []sender{
		{trace.App, toOthers, process, ruleset.Packet{Direction: ruleset.Out}},
		{trace.Outside, toPod, base.With(ruleset.FieldInterface, space.From()), ruleset.Packet{Direction: ruleset.In}},
	} {
		survey := ruleset.NewSurvey(sender.box)
		for survey.Next() {
			var packets [2]ruleset.Flow
			var ways [2]string
			var unknown bool
			for i := range stacks {
				packets[i] = survey.Flow(sender.template)
				path, _ := survey.Walk(stacks[i], &hosts[i], &packets[i])
				ways[i] = packetWay(packets[i].Packet, path)
				unknown = unknown || path.Outcome.Fate == ruleset.Unknown
			}
			mixed := survey.Mixed()
			if class := survey.Class(); ways[0] != ways[1] || mixed {
				d.add(sender, class, trace.Connection{From: sender.actor, Packet: packets[0].Packet}, ways[0], ways[1], unknown || mixed)
			}
		}
	}
}

// packetWay says which way a packet goes.
func packetWay(packet ruleset.Packet, path ruleset.Path) string {
	outcome := path.Outcome
	if outcome.Port == packet.DstPort {
		outcome.Port = 0
	}
	text := outcome.String()
	if path.Zone != 0 {
		text += fmt.Sprintf(", in zone %d of conntrack", path.Zone)
	}
	if path.Untracked {
		text += ", not tracked"
	}
	return text
}

// share writes a part of a whole for people: in percent, or one in so many.
func share(part *big.Rat) string {
	if part.Cmp(big.NewRat(1, 1000)) >= 0 {
		percent, _ := new(big.Rat).Mul(part, big.NewRat(100, 1)).Float64()
		return fmt.Sprintf("%.3g %% of them", percent)
	}
	many, _ := new(big.Rat).Inv(part).Float64()
	return fmt.Sprintf("one in %.3g of them", many)
}
