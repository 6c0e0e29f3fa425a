package trace

import (
	"iter"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Class is a set of connections that go the same way, also where the proxy goes on
// with them, and back.
type Class struct {
	Box      ruleset.Box
	Journeys []Journey // of one of them, in each of the pods, without hooks
	// Mixed means that rules combine two marks bit by bit. Then some of the
	// connections may go another way.
	Mixed bool
}

// Classes divides the connections that somebody opens by the way that they go in
// some pods, which have sides of the box's family. What the box does not look at is
// as in the template.
func Classes(from Actor, box ruleset.Box, template ruleset.Packet, pods ...*Pod) iter.Seq[Class] {
	return func(yield func(Class) bool) {
		survey := ruleset.NewSurvey(box)
		var walkers []*walker
		for _, pod := range pods {
			w := newWalker(pod.Proxy, pod.Side(box.Space().Family))
			w.survey = survey
			walkers = append(walkers, w)
		}
		for survey.Next() {
			first := survey.Flow(template)
			class := Class{Journeys: make([]Journey, len(walkers))}
			for i, w := range walkers {
				class.Journeys[i] = w.journey(Connection{From: from, Packet: first.Packet, HopPort: survey.HopPort()}, first, nil)
			}
			class.Mixed = survey.Mixed()
			if class.Box = survey.Class(); !yield(class) {
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
