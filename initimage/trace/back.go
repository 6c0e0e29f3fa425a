package trace

import (
	"fmt"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// unanswered reports whether the listener's answer to the last leg does not come
// back, and ends the journey if so: a process gets a tcp connection once its
// listener's answer has. A rule that is not understood is left to back.
func (w *walker) unanswered(j *Journey) bool {
	gone := j.Legs[len(j.Legs)-1]
	packet, from := w.answerOf(&gone)
	answer := w.leg(j, answerTitle(from, gone), from, packet, nil)
	answer.Answer = true
	problem := ""
	if answer.Path.Undecided == nil {
		problem = w.returns(&gone, answer)
	}
	if problem == "" {
		j.Legs = j.Legs[:len(j.Legs)-1]
		return false
	}
	answer.Outcome = capital(problem) + "."
	j.End = End{Kind: EndLost, Proxied: true, Text: problem}
	return true
}

// back follows the answers, the last connection's first. It returns the rule that
// has to be decided, if one has to.
func (w *walker) back(j *Journey, decided []decision) *ruleset.Rule {
	for i := len(j.Legs) - 1; i >= 0; i-- {
		gone := j.Legs[i]
		packet, from := w.answerOf(&gone)
		leg := w.leg(j, answerTitle(from, gone), from, packet, decided)
		leg.Answer = true
		if leg.Path.Undecided != nil {
			leg.Outcome = "It is not known whether this rule matches."
			return leg.Path.Undecided
		}
		if problem := w.returns(&gone, leg); problem != "" {
			leg.Outcome = capital(problem) + "."
			j.End = End{Kind: EndLost, Proxied: j.End.Proxied, Text: problem}
			return nil
		}
	}
	return nil
}

// answerOf returns the first packet of the answer to a leg, and who sends it.
func (w *walker) answerOf(gone *Leg) (ruleset.Flow, Actor) {
	answer := gone.back
	fate := gone.Path.Outcome.Fate
	switch {
	case answer.Packet.Direction == ruleset.In:
		return answer, Outside
	case (fate == ruleset.Redirected || fate == ruleset.TProxied) && w.reachesProxy(gone):
		answer.Packet.UID, answer.Packet.GID = w.proxy.UID, w.proxy.GID
		if w.proxy.MarkAll {
			answer.Packet.Mark = w.proxy.Mark
		}
		return answer, TheProxy
	}
	return answer, App
}

func answerTitle(from Actor, gone Leg) string {
	to := map[Actor]string{App: "the app", TheProxy: "the proxy", Outside: "the client"}[gone.From]
	switch from {
	case Outside:
		return "The answer from outside comes back to " + to
	case TheProxy:
		return "The proxy answers " + to
	}
	if gone.From == App {
		return "The answer goes back in the pod"
	}
	return "The app answers " + to
}

// returns says why an answer does not come back to who opened the connection, or
// sets its outcome and returns "".
func (w *walker) returns(gone, leg *Leg) string {
	who := map[Actor]string{App: "the app", TheProxy: "the proxy", Outside: "the client"}[gone.From]
	switch leg.Path.Outcome.Fate {
	case ruleset.Dropped, ruleset.Rejected:
		return fmt.Sprintf("the answer to %s does not come back: it is dropped (%s)", who, leg.why())
	case ruleset.Redirected, ruleset.TProxied, ruleset.Rewritten:
		return fmt.Sprintf("the answer to %s does not come back: it is diverted (%s)", who, leg.why())
	case ruleset.Unknown:
		return fmt.Sprintf("it is not known whether the answer to %s comes back (%s)", who, leg.why())
	}
	stays := leg.Path.Outcome.Fate == ruleset.Local || leg.Packet.Direction == ruleset.In || w.isLocal(&leg.sent)
	if stays == (gone.From == Outside) {
		return astray(gone, leg)
	}
	leg.Outcome = "It reaches the socket of " + who + "."
	if gone.From == Outside {
		leg.Outcome = fmt.Sprintf("It leaves the pod for %s.", endpoint(leg.Packet.Dst, leg.Packet.DstPort))
	}
	if gone.Path.Outcome.Fate != ruleset.Redirected {
		return ""
	}
	switch {
	case leg.Path.Untracked:
		return fmt.Sprintf("the answer to %s is not recognized: conntrack does not track it, and nat cannot restore its addresses", who)
	case leg.Path.Zone != gone.Path.Zone:
		return fmt.Sprintf("the answer to %s is not recognized: it is in zone %d of conntrack, and the connection in zone %d",
			who, leg.Path.Zone, gone.Path.Zone)
	}
	leg.Outcome += fmt.Sprintf(" nat gives it the address back that %s called: %s.", who, endpoint(gone.Packet.Dst, gone.Packet.DstPort))
	return ""
}

// astray says why an answer leaves the pod that is for a socket in it, or the other
// way round.
func astray(gone, leg *Leg) string {
	if gone.From == Outside {
		return "the answer does not leave the pod: it is kept for a socket of the proxy"
	}
	why := "nothing marks it, so that no ip rule brings it back in"
	if n := len(leg.Path.Hooks); n > 0 && leg.Path.Hooks[n-1].Packet.Mark != 0 {
		mark := leg.Path.Hooks[n-1].Packet.Mark
		why = fmt.Sprintf("no ip rule and route bring what has the mark %#x back in", mark)
	}
	return fmt.Sprintf("the answer to the proxy leaves the pod for %s, and the proxy waits for it in vain: %s", leg.Packet.Dst, why)
}
