package trace

import (
	"fmt"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// unanswered reports whether the listener's answer to the last leg does not come
// back, and ends the journey if so: a process gets a tcp connection once its
// listener's answer has. What is not known is left to back.
func (w *walker) unanswered(j *Journey) bool {
	gone := j.Legs[len(j.Legs)-1]
	packet, from := w.answerOf(&gone)
	answer := w.leg(j, answerTitle(from, gone), from, packet, nil)
	answer.Answer = true
	kind, problem := EndUnknown, ""
	if answer.Path.Undecided == nil {
		kind, problem = w.returns(&gone, answer)
	}
	if kind == EndUnknown || problem == "" {
		j.Legs = j.Legs[:len(j.Legs)-1]
		return false
	}
	answer.Outcome = capital(problem) + "."
	j.End = End{Kind: kind, Proxied: true, Text: problem}
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
		if kind, problem := w.returns(&gone, leg); problem != "" {
			leg.Outcome = capital(problem) + "."
			j.End = End{Kind: kind, Proxied: j.End.Proxied, Text: problem}
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
// sets its outcome and returns "". The kind is EndLost, or EndUnknown where it is
// not known.
func (w *walker) returns(gone, leg *Leg) (kind EndKind, problem string) {
	who := map[Actor]string{App: "the app", TheProxy: "the proxy", Outside: "the client"}[gone.From]
	switch leg.Path.Outcome.Fate {
	case ruleset.Dropped, ruleset.Rejected:
		return EndLost, fmt.Sprintf("the answer to %s does not come back: it is dropped (%s)", who, leg.why())
	case ruleset.Redirected, ruleset.TProxied, ruleset.Rewritten:
		return EndLost, fmt.Sprintf("the answer to %s does not come back: it is diverted (%s)", who, leg.why())
	case ruleset.Unknown:
		return EndUnknown, fmt.Sprintf("it is not known whether the answer to %s comes back (%s)", who, leg.why())
	}
	stays := leg.Path.Outcome.Fate == ruleset.Local || leg.Packet.Direction == ruleset.In || w.isLocal(&leg.sent)
	if stays == (gone.From == Outside) {
		return w.astray(gone, leg)
	}
	leg.Outcome = "It reaches the socket of " + who + "."
	if gone.From == Outside {
		leg.Outcome = fmt.Sprintf("It leaves the pod for %s.", endpoint(leg.Packet.Dst, leg.Packet.DstPort))
	}
	if gone.Path.Outcome.Fate != ruleset.Redirected {
		return EndLost, ""
	}
	switch {
	case leg.Path.Untracked:
		problem = fmt.Sprintf("the answer to %s is not recognized: conntrack does not track it, and nat cannot restore its addresses", who)
	case leg.Path.Zone != gone.Path.Zone:
		problem = fmt.Sprintf("the answer to %s is not recognized: it is in zone %d of conntrack, and the connection in zone %d",
			who, leg.Path.Zone, gone.Path.Zone)
	}
	leg.Outcome += fmt.Sprintf(" nat gives it the address back that %s called: %s.", who, endpoint(gone.Packet.Dst, gone.Packet.DstPort))
	return EndLost, problem
}

// astray says why an answer leaves the pod that is for a socket in it, or the other
// way round. Routing that was not read may bring it back in.
func (w *walker) astray(gone, leg *Leg) (EndKind, string) {
	if gone.From == Outside {
		return EndLost, "the answer does not leave the pod: it is kept for a socket of the proxy"
	}
	mark := uint32(0)
	if n := len(leg.Path.Hooks); n > 0 {
		mark = leg.Path.Hooks[n-1].Packet.Mark
	}
	switch {
	case len(w.unread) > 0:
		return EndUnknown, fmt.Sprintf("it is not known whether the answer to the proxy comes back: it does if an ip rule "+
			"that was not read brings what has the mark %#x back in", mark)
	case mark != 0:
		return EndLost, fmt.Sprintf("the answer to the proxy leaves the pod for %s, and the proxy waits for it in vain: "+
			"no ip rule and route bring what has the mark %#x back in", leg.Packet.Dst, mark)
	}
	return EndLost, fmt.Sprintf("the answer to the proxy leaves the pod for %s, and the proxy waits for it in vain: "+
		"nothing marks it, so that no ip rule brings it back in", leg.Packet.Dst)
}
