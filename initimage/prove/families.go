package prove

import (
	"fmt"

	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

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
	template, outside := s.template, s.box.Space().Unnamed()
	template.Dst = outside
	if s.actor == trace.Outside {
		template.Src, template.Dst = outside, pod.Side(s.box.Space().Family).Address()
	}
	return sender{s.actor, s.to, s.box.With(ruleset.FieldSrc, nil).With(ruleset.FieldDst, nil), template}
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
	some := sender{s.actor, s.to, box, s.template}
	for class := range some.classes(pod) {
		return class.Journeys
	}
	return nil
}
