package prove

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

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
	return f.sender.actor == trace.Outside && f.sender.to != toPod
}

// dropped reports whether the last packet of the journey is dropped or rejected.
func (f found) dropped() bool {
	fate := f.last().Path.Outcome.Fate
	return fate == ruleset.Dropped || fate == ruleset.Rejected
}

func unknownFate(leg trace.Leg) bool { return leg.Path.Outcome.Fate == ruleset.Unknown }

func (f found) end() trace.EndKind { return f.journey().End.Kind }

// known takes a class of which it is not known where it goes. It returns false for
// one.
func (p *prover) known(statement int, f found) bool {
	var why string
	switch {
	case f.Mixed:
		why = "rules combine the packet's mark and the connection's bit by bit"
	case f.end() == trace.EndUnknown || slices.ContainsFunc(f.journey().Legs, unknownFate):
		why = "it is not known what a rule does"
		if steps := f.last().Path.Steps; len(steps) > 0 && f.last().Path.Undecided != nil {
			why = "it is not known whether a rule matches: " + steps[len(steps)-1].String()
		}
	default:
		return true
	}
	p.statements[statement].unknown(fmt.Sprintf("%s: %s", f.sender.box.Space().Family, why))
	return false
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
	if first := f.first(); first.Path.Outcome.Fate == ruleset.Unknown && first.Path.Undecided == nil && first.Packet.Src.IsLoopback() {
		p.statements[saysLoopback].except(f, "the kernel drops it, unless route_localnet is set and the namespace has never had an ip rule")
		return
	}
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
