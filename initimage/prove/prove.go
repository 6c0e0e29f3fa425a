package prove

import (
	"fmt"
	"slices"

	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// Result is what was found of a pod.
type Result struct {
	Pod        trace.Pod
	Statements []Statement
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
	if len(pod.Sides) < 2 {
		p.statements = slices.Delete(p.statements, saysFamilies, saysFamilies+1)
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
			if sender.to == forged {
				p.loopback(found)
				continue
			}
			p.loop(found)
			p.answers(found)
			p.blocked(found)
			switch {
			case sender.actor == trace.App && sender.to == toOthers:
				p.intercepted(saysOut, found)
			case sender.actor == trace.Outside && sender.to != toOthers:
				p.intercepted(saysIn, found)
			}
		}
	}
}
