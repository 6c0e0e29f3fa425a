package prove

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// Verdict says whether a statement holds.
type Verdict string

// The verdicts.
const (
	Proved  Verdict = "proved"  // for all connections, but for the exceptions that are listed
	Refuted Verdict = "refuted" // there is a counterexample
	Unknown Verdict = "unknown" // it depends on what is not known
)

// Statement is something about all connections of a pod, and whether it holds.
type Statement struct {
	Name       string // one word: "out"
	Text       string // in plain English
	Verdict    Verdict
	Classes    int // of connections that it was checked for
	Exceptions []Exception
	// Counterexample is a connection for which it does not hold; nil for none.
	Counterexample *Example
	Why            string // it is unknown, or does not hold

	places map[exceptionKey]int
}

// Exception is a reason for which connections are excepted.
type Exception struct {
	Reason   string
	Families []ruleset.Family
	Example  Example
	boxes    []ruleset.Box
	whole    ruleset.Box
}

// Example is a connection, and those that go its way for the same reason.
type Example struct {
	Connection trace.Connection
	Set        string // in words: "tcp to port 22"; "" for all of the sender

	pod *trace.Pod // as seen by the interface that the connection leaves by
}

// Journey follows the connection.
func (e *Example) Journey() trace.Journey { return trace.Walk(*e.pod, e.Connection) }

// Result is what was found of a pod.
type Result struct {
	Pod        trace.Pod
	Statements []Statement
}

// Holds reports whether everything is proved.
func (r *Result) Holds() bool {
	return !slices.ContainsFunc(r.Statements, func(s Statement) bool { return s.Verdict != Proved })
}

// The statements, in the order in which they are made.
const (
	saysOut = iota
	saysIn
	saysLoop
	saysAnswers
	saysLoopback
	saysFamilies
	saysBlocked
)

var statements = [...]Statement{
	saysOut:      {Name: "out", Text: "The proxy gets every connection that a process of the pod opens to another host"},
	saysIn:       {Name: "in", Text: "The proxy gets every connection from another host"},
	saysLoop:     {Name: "loop", Text: "No connection that the proxy opens comes back to it"},
	saysAnswers:  {Name: "answers", Text: "Every connection gets to its end, and the answer to it comes back"},
	saysLoopback: {Name: "loopback", Text: "Nobody outside reaches the pod with a loopback address"},
	saysFamilies: {Name: "families", Text: "Both families are intercepted alike"},
	saysBlocked:  {Name: "blocked", Text: "Nothing is dropped or rejected"},
}

// Prove makes the statements about a pod.
func Prove(pod trace.Pod) Result {
	p := &prover{pod: &pod, ours: hasOurs(pod), statements: slices.Clone(statements[:])}
	for i := range p.statements {
		p.statements[i].Verdict = Proved
	}
	for i := range pod.Sides {
		p.side(&pod.Sides[i])
	}
	p.families()
	for i := range p.statements {
		p.statements[i].finish()
	}
	return Result{Pod: pod, Statements: p.statements}
}

// hasOurs reports whether a pod has rules of Shunt. Then a rule of others may let no
// connection off.
func hasOurs(pod trace.Pod) bool {
	return slices.ContainsFunc(pod.Sides, func(s trace.Side) bool {
		return slices.ContainsFunc(s.Sets, func(rs ruleset.RuleSet) bool { return rs.Party == "" && !rs.Owned().Empty() })
	})
}

type prover struct {
	pod        *trace.Pod
	ours       bool
	statements []Statement
}

// side checks one family, by each interface that connections may leave by.
func (p *prover) side(side *trace.Side) {
	for i, uplink := range uplinks(side.Host) {
		pod := *p.pod
		pod.Sides = slices.Clone(pod.Sides)
		pod.Side(side.Family).Host = side.Host.Behind(uplink)
		p.walk(&pod, side.Family, i > 0)
	}
	for _, what := range side.Unread {
		for i := range p.statements {
			p.statements[i].unknown(fmt.Sprintf("%s: this could not be read: %s", side.Family, what))
		}
	}
}

// uplinks returns the interfaces of a host that connections may leave by, the usual
// one first.
func uplinks(host ruleset.Host) []string {
	names := []string{host.Uplink}
	for _, i := range host.Interfaces {
		if i.Name != host.Uplink {
			names = append(names, i.Name)
		}
	}
	return names
}

// walk checks every connection of one family. Those from outside were checked by the
// first uplink: they come in by any.
func (p *prover) walk(pod *trace.Pod, family ruleset.Family, again bool) {
	for _, sender := range newUniverse(family, []*trace.Pod{pod}, ruleset.New).senders() {
		if again && sender.actor == trace.Outside && sender.to != toPod {
			continue
		}
		for class := range sender.classes(pod) {
			found := found{class, sender, pod}
			p.loop(found)
			p.answers(found)
			p.blocked(found)
			switch {
			case sender.to == forged:
				p.loopback(found)
			case sender.actor == trace.App && sender.to == toOthers:
				p.intercepted(saysOut, found)
			case sender.actor == trace.Outside && sender.to != toOthers:
				p.intercepted(saysIn, found)
			}
		}
	}
}

// found is a class, as the statements look at it.
type found struct {
	trace.Class
	sender sender
	pod    *trace.Pod
}

func (f found) journey() *trace.Journey { return &f.Journeys[0] }

func (f found) first() *trace.Leg { return &f.journey().Legs[0] }

func (f found) last() *trace.Leg { return &f.journey().Legs[len(f.journey().Legs)-1] }

func (f found) example() Example {
	return Example{Connection: started(f.journey()), Set: f.Box.Describe(f.sender.box), pod: f.pod}
}

// stray reports whether connections come from outside and are not for the pod, or
// forged.
func (f found) stray() bool {
	return f.sender.actor == trace.Outside && (f.sender.to == toOthers || f.sender.to == forged)
}

// dropped reports whether the last packet of the journey is dropped or rejected.
func (f found) dropped() bool {
	fate := f.last().Path.Outcome.Fate
	return fate == ruleset.Dropped || fate == ruleset.Rejected
}

func (f found) end() trace.EndKind { return f.journey().End.Kind }

// known takes a class of which it is not known where it goes. It returns false for
// one.
func (p *prover) known(statement int, f found) bool {
	why := ""
	switch {
	case f.Mixed:
		why = "rules combine the packet's mark and the connection's bit by bit"
	case f.end() == trace.EndUnknown:
		why = "it is not known what a rule does"
		if steps := f.last().Path.Steps; len(steps) > 0 {
			why = "it is not known whether a rule matches: " + steps[len(steps)-1].String()
		}
	default:
		return true
	}
	p.statements[statement].unknown(fmt.Sprintf("%s: %s", f.sender.box.Space().Family, why))
	return false
}

func (s *Statement) unknown(why string) {
	if s.Verdict == Proved {
		s.Verdict, s.Why = Unknown, why
	}
}

// refute takes a connection for which the statement does not hold. The first is
// kept.
func (s *Statement) refute(f found, why string) {
	if s.Verdict != Refuted {
		example := f.example()
		s.Verdict, s.Why, s.Counterexample = Refuted, why, &example
	}
}

// except takes a class that is excepted. Those of one sender with one reason are put
// together.
func (s *Statement) except(f found, reason string) {
	family := f.sender.box.Space().Family
	key := exceptionKey{reason, f.sender.actor, f.sender.to, family}
	if i, known := s.places[key]; known {
		s.Exceptions[i].boxes = append(s.Exceptions[i].boxes, f.Box)
		return
	}
	if s.places == nil {
		s.places = map[exceptionKey]int{}
	}
	s.places[key] = len(s.Exceptions)
	s.Exceptions = append(s.Exceptions, Exception{reason, []ruleset.Family{family}, f.example(), []ruleset.Box{f.Box}, f.sender.box})
}

// exceptionKey tells the exceptions of a statement apart.
type exceptionKey struct {
	reason string
	actor  trace.Actor
	to     target
	family ruleset.Family
}

// finish describes the exceptions. Those that read the same for both families become
// one.
func (s *Statement) finish() {
	var all []Exception
	for _, e := range s.Exceptions {
		boxes := ruleset.Join(e.boxes)
		e.Example.Set = boxes[0].Describe(e.whole)
		if len(boxes) > 1 {
			e.Example.Set = fmt.Sprintf("%s, and %s", e.Example.Set, count(len(boxes)-1, "set more", "sets more"))
		}
		i := slices.IndexFunc(all, func(other Exception) bool {
			return other.Reason == e.Reason && other.Example.Set == e.Example.Set && other.Example.Connection.From == e.Example.Connection.From
		})
		switch {
		case i < 0:
			all = append(all, e)
		case !slices.Contains(all[i].Families, e.Families[0]):
			all[i].Families = append(all[i].Families, e.Families[0])
		}
	}
	s.Exceptions = all
}

// intercepted checks that the proxy gets a class.
//
//	who gets it                        | result
//	the proxy                          | holds
//	nobody                             | holds: it is blocked
//	another, and a rule of ours says so | excepted
//	another, and no rule does, by udp  | excepted: nothing takes it
//	another, and no rule of ours does  | refuted; excepted where no rules are ours
func (p *prover) intercepted(statement int, f found) {
	s := &p.statements[statement]
	if !p.known(statement, f) {
		return
	}
	s.Classes++
	if f.journey().End.Proxied || f.end() == trace.EndBlocked {
		return
	}
	leg := f.first()
	reason, foreign := letOff(leg)
	culprit := lastOfOthers(leg)
	switch {
	case p.ours && leg.Packet.Protocol == "tcp" && culprit != nil && (reason == "" || foreign):
		s.refute(f, "a rule of others takes it past the proxy: "+culprit.String())
	case reason == "" && leg.Packet.Protocol != "tcp":
		s.except(f, "no rule takes "+leg.Packet.Protocol)
	case reason == "":
		s.refute(f, "no rule looks at it")
	default:
		s.except(f, reason)
	}
}

// lastOfOthers returns the last rule of others that can have changed a packet's way.
func lastOfOthers(leg *trace.Leg) *ruleset.Step {
	for i := len(leg.Path.Steps) - 1; i >= 0; i-- {
		if step := &leg.Path.Steps[i]; step.Foreign && step.Acts() {
			return step
		}
	}
	return nil
}

// letOff says which rule lets a packet off, or which chain's end; "" for none.
func letOff(leg *trace.Leg) (reason string, foreign bool) {
	if leg.Decides != nil {
		return trace.Reason(*leg.Decides), leg.Decides.Foreign
	}
	for i := len(leg.Path.Steps) - 1; i >= 0; i-- {
		step := leg.Path.Steps[i]
		if jump, leads := step.Rule.Target.(ruleset.Jump); leads && !strings.HasSuffix(step.Table, "filter") {
			return fmt.Sprintf("no rule of chain %s takes it", jump.Chain), step.Foreign
		}
	}
	return "", false
}

// loop checks that what the proxy opens does not come back to it. A connection to a
// port that the proxy listens on reaches it, too, without any rule.
func (p *prover) loop(f found) {
	s := &p.statements[saysLoop]
	if !p.known(saysLoop, f) {
		return
	}
	if f.sender.actor == trace.TheProxy || len(f.journey().Legs) > 1 && f.journey().Legs[1].From == trace.TheProxy {
		s.Classes++
	}
	switch {
	case f.end() != trace.EndLoop:
	case f.last().Path.Outcome.Fate == ruleset.Direct:
		if f.sender.actor == trace.Outside && f.sender.to == toPod { // the others do nothing that a client could not do
			f.Box = f.Box.With(ruleset.FieldSrc, f.sender.box.Values(ruleset.FieldSrc))
			s.except(f, "the port is the proxy's own, which has to close such a connection, as Envoy does in Shunt's pods")
		}
	default:
		s.refute(f, f.journey().End.Text)
	}
}

// answers checks that the proxy can go on with what it gets, that nothing is kept in
// the pod where no socket waits for it, and that the answers come back. What a rule
// drops is another statement's.
func (p *prover) answers(f found) {
	s := &p.statements[saysAnswers]
	if f.stray() || !p.known(saysAnswers, f) || f.end() == trace.EndLoop {
		return
	}
	if f.dropped() && (f.end() == trace.EndBlocked || f.last().Decides != nil) {
		return
	}
	stuck := f.end() == trace.EndBlocked
	s.Classes++
	if last := f.last(); f.end() == trace.EndLost && last.Packet.Protocol == "udp" && last.Decides != nil && !last.Decides.Foreign {
		s.except(f, "the proxy gets every packet to that port, also an answer: "+trace.Reason(*last.Decides))
		return
	}
	if f.end() == trace.EndLost || stuck {
		s.refute(f, f.journey().End.Text)
	}
}

// loopback checks that what comes from outside with an address of everybody's is
// dropped.
func (p *prover) loopback(f found) {
	if !p.known(saysLoopback, f) {
		return
	}
	p.statements[saysLoopback].Classes++
	if f.end() != trace.EndBlocked {
		p.statements[saysLoopback].refute(f, f.journey().End.Text)
	}
}

// blocked lists what is dropped or rejected, but for what comes from outside and is
// not for the pod, or forged.
func (p *prover) blocked(f found) {
	s := &p.statements[saysBlocked]
	if f.stray() || !p.known(saysBlocked, f) {
		return
	}
	s.Classes++
	leg := f.last()
	what := string(leg.Path.Outcome.Fate)
	if leg.Answer {
		what += " of the answer"
	}
	switch {
	case !f.dropped():
	case leg.Decides != nil:
		s.except(f, what+": "+trace.Reason(*leg.Decides))
	case !leg.Answer:
		s.except(f, what+": the kernel does so without a rule")
	}
}

// families checks that both families are intercepted alike, as far as addresses do
// not decide: connections to and from an address that no rule names.
func (p *prover) families() {
	if len(p.pod.Sides) < 2 {
		return
	}
	var both [2][]sender
	for i := range both {
		both[i] = newUniverse(p.pod.Sides[i].Family, []*trace.Pod{p.pod}, ruleset.New).senders()
	}
	ones, others := both[0], both[1]
	for i, one := range ones {
		if one.actor == trace.App && one.to == toOthers || one.actor == trace.Outside && one.to == toPod {
			p.compareFamilies(one.ordinary(p.pod), others[i].ordinary(p.pod))
		}
	}
}

// ordinary returns the sender's connections with addresses that no rule names.
func (s sender) ordinary(pod *trace.Pod) sender {
	side := pod.Side(s.box.Space().Family)
	outside := s.box.Space().Unnamed()
	s.template.Dst = outside
	if s.actor == trace.Outside {
		s.template.Src, s.template.Dst = outside, side.Address()
	}
	s.box = s.box.With(ruleset.FieldSrc, nil).With(ruleset.FieldDst, nil)
	return s
}

func (p *prover) compareFamilies(one, other sender) {
	s := &p.statements[saysFamilies]
	var classes []found
	for class := range other.classes(p.pod) {
		classes = append(classes, found{class, other, p.pod})
	}
	for class := range one.classes(p.pod) {
		f := found{class, one, p.pod}
		s.Classes++
		if !p.known(saysFamilies, f) {
			continue
		}
		for _, of := range classes {
			if !p.known(saysFamilies, of) || f.journey().End.Proxied == of.journey().End.Proxied || f.Box.Disjoint(of.Box) {
				continue
			}
			past, gone := of, f
			if !f.journey().End.Proxied {
				past, gone = f, of
			}
			past.Box = past.Box.And(gone.Box)
			past.Journeys = past.sender.walk(p.pod, past.Box)
			s.refute(past, fmt.Sprintf("the proxy gets this by %s, and not by %s",
				gone.sender.box.Space().Family, past.sender.box.Space().Family))
			return
		}
	}
}

// walk walks one of some connections of the sender.
func (s sender) walk(pod *trace.Pod, box ruleset.Box) []trace.Journey {
	s.box = box
	for class := range s.classes(pod) {
		return class.Journeys
	}
	return nil
}
