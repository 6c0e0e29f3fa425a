package trace

import (
	"iter"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Class is a set of connections that go the same way, also where the proxy goes on
// with them, and back.
type Class struct {
	Box     ruleset.Box
	Journey Journey // of one of them, without the steps
	// Mixed means that rules combine two marks bit by bit. Then some of the
	// connections may go another way.
	Mixed bool
}

// Classes divides the connections that somebody opens by the way that they go. What
// the box does not look at is as in the template.
func Classes(proxy Proxy, side *Side, from Actor, box ruleset.Box, template ruleset.Packet) iter.Seq[Class] {
	return func(yield func(Class) bool) {
		survey := ruleset.NewSurvey(box)
		w := newWalker(proxy, side)
		w.survey = survey
		for survey.Next() {
			first := survey.Flow(template)
			journey := w.journey(Connection{From: from, Packet: first.Packet}, first, nil)
			if !yield(Class{Mixed: survey.Mixed(), Box: survey.Class(), Journey: journey}) {
				return
			}
		}
	}
}

// isLocal reports whether a packet is for an address of the pod.
func (w *walker) isLocal(packet *ruleset.Flow) bool {
	if w.survey != nil {
		w.survey.IsLocal(&w.host, packet)
	}
	return w.side.local(packet.Packet.Dst)
}

// callsProxy reports whether a packet is for a port that the proxy listens on.
func (w *walker) callsProxy(packet *ruleset.Flow) bool {
	if w.survey != nil {
		w.survey.ComparePort(packet, false, w.proxy.ports()...)
	}
	return w.proxy.listens(packet.Packet.DstPort)
}

// reachesProxy reports whether a leg that is diverted gets to the proxy.
func (w *walker) reachesProxy(leg *Leg) bool {
	if w.survey != nil && leg.Path.Outcome.Fate == ruleset.Redirected {
		w.survey.ComparePort(&leg.back, true, w.proxy.ports()...)
	}
	return w.proxy.listens(leg.Path.Outcome.Port)
}

// got reports whether the proxy got a leg on a port.
func (w *walker) got(leg *Leg, port uint16) bool {
	if w.survey != nil && leg.Path.Outcome.Fate == ruleset.Redirected {
		w.survey.ComparePort(&leg.back, true, port)
	}
	return leg.Path.Outcome.Port == port
}
