package trace

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Bounds of a journey. Nobody reads more; rules that need more go in circles.
const (
	maxHops  = 8 // connections of the proxy
	maxForks = 5 // rules of which it is not known whether they match
)

// Walk follows a connection through the pod.
//
// Every connection that the proxy gets it answers with one of its own: to the
// original destination, from 127.0.0.6 or ::6, or with a transparent proxy from the
// client's address with a mark, to the app; from the pod's address to the rest.
func Walk(pod Pod, c Connection) Journey {
	side := pod.Side(c.Packet.Family)
	if side == nil {
		return Journey{Connection: c, End: End{Kind: EndUnknown,
			Text: fmt.Sprintf("nothing is known of the pod's %s", c.Packet.Family)}}
	}
	return newWalker(pod.Proxy, side).journey(c, ruleset.Flow{Packet: c.Packet}, nil)
}

func newWalker(proxy Proxy, side *Side) *walker {
	unread := slices.Clone(side.Unread)
	for _, intruder := range side.Routing.Intruders {
		unread = append(unread, "what this routing does: ip "+intruder)
	}
	return &walker{unread: unread, proxy: proxy, side: side, host: side.Walked(), stack: ruleset.NewStack(side.Routing, side.Sets...)}
}

// walker walks the journeys of one question.
type walker struct {
	proxy Proxy
	side  *Side
	host  ruleset.Host
	stack *ruleset.Stack
	// unread is what is not known of the side.
	unread []string
	// survey is told of everything that is compared on the way, if there is one.
	survey *ruleset.Survey
}

// decision says of a rule that is not understood whether it accepts the packet of
// one leg.
type decision struct {
	leg     int
	rule    *ruleset.Rule
	accepts bool
}

// journey follows a connection until it ends, or until a rule decides of which it is
// not known whether it matches: then it follows both ways.
func (w *walker) journey(c Connection, first ruleset.Flow, decided []decision) Journey {
	j := Journey{Connection: c, Unread: w.unread}
	undecided := w.forth(&j, first, decided)
	if undecided == nil && j.End.Kind != EndLoop && j.End.Kind != EndBlocked && j.End.Kind != EndLost {
		undecided = w.back(&j, decided)
	}
	if undecided == nil {
		return j
	}
	if w.survey != nil {
		j.End = End{Kind: EndUnknown}
		return j
	}
	last := j.Legs[len(j.Legs)-1]
	step := last.Path.Steps[len(last.Path.Steps)-1]
	j.End = End{Kind: EndUnknown, Text: fmt.Sprintf("it is not known whether %s matches: %s", Place(step), step.Rule)}
	if len(decided) == maxForks {
		return j
	}
	leg := len(j.Legs) - 1
	fork := Fork{Rule: step}
	fork.If = w.journey(c, first, append(slices.Clone(decided), decision{leg, undecided, true}))
	fork.Unless = w.journey(c, first, append(slices.Clone(decided), decision{leg, undecided, false}))
	if fork.If.End == fork.Unless.End && fork.If.End.Kind != EndUnknown {
		j.End = fork.If.End
	}
	j.Fork = &fork
	return j
}

// leg walks the packet of the journey's next leg and adds it.
func (w *walker) leg(j *Journey, title string, from Actor, sent ruleset.Flow, decided []decision) *Leg {
	known := map[*ruleset.Rule]bool{}
	for _, d := range decided {
		if d.leg == len(j.Legs) {
			known[d.rule] = d.accepts
		}
	}
	var path ruleset.Path
	var back ruleset.Flow
	if w.survey != nil {
		path, back = w.survey.Walk(w.stack, &w.host, &sent)
	} else {
		path = w.stack.Follow(w.host, sent.Packet, known)
		sent.Packet.Src, back = path.Answer.Dst, ruleset.Flow{Packet: path.Answer}
	}
	j.Legs = append(j.Legs, Leg{Title: title, From: from, Packet: sent.Packet, Path: path, Decides: decides(path), sent: sent, back: back})
	return &j.Legs[len(j.Legs)-1]
}

// forth follows the connection and those that the proxy opens for it, and sets the
// journey's end. It returns the rule that has to be decided, if one has to.
func (w *walker) forth(j *Journey, packet ruleset.Flow, decided []decision) *ruleset.Rule {
	from, title := j.Connection.From, w.title(j.Connection)
	var seen []*ruleset.Flow // of the proxy
	for range maxHops {
		leg := w.leg(j, title, from, packet, decided)
		if leg.Path.Undecided != nil {
			leg.Outcome = "It is not known whether this rule matches."
			return leg.Path.Undecided
		}
		end, role := w.arrive(leg, len(j.Legs) > 1)
		if role == "" {
			j.End = end
			return nil
		}
		if w.unanswered(j) {
			return nil
		}
		leg = &j.Legs[len(j.Legs)-1]
		if from == TheProxy {
			sent := leg.sent
			seen = append(seen, &sent)
		}
		if problem := w.unbindable(role); problem != "" {
			j.End = End{Kind: EndBlocked, Proxied: true, Text: problem}
			return nil
		}
		from, title = TheProxy, titles[role]
		packet = w.hop(leg, role, j.Connection.HopPort)
		if slices.ContainsFunc(seen, packet.Same) {
			break
		}
	}
	last := &j.Legs[len(j.Legs)-1]
	j.End = End{Kind: EndLoop, Proxied: true, Text: fmt.Sprintf(
		"the proxy's own connection comes back to the proxy, for ever or until it gives up (%s)", last.why())}
	last.Outcome += " This is the proxy's own connection: it comes back."
	return nil
}

// role is what the proxy does with a connection that it got.
type role string

const (
	roleInbound  role = "inbound"
	roleOutbound role = "outbound"
	roleDNS      role = "dns"
)

var titles = map[role]string{
	roleInbound:  "The proxy connects to the app",
	roleOutbound: "The proxy connects to where the app wanted to go",
	roleDNS:      "The proxy asks a DNS server itself",
}

// title is what a connection is, for people.
func (w *walker) title(c Connection) string {
	own := w.side.local(c.Packet.Dst)
	switch {
	case c.From == Outside:
		return "A client connects to the pod"
	case c.From == TheProxy && own:
		return "The proxy connects to its own pod"
	case c.From == TheProxy:
		return "The proxy opens a connection of its own"
	case own:
		return "The app connects to its own pod"
	}
	return "The app opens a connection"
}

// arrive says where a leg ended. It returns the role in which the proxy goes on
// with it, or "" and the journey's end.
func (w *walker) arrive(leg *Leg, proxied bool) (End, role) {
	outcome, packet := leg.Path.Outcome, leg.Packet
	to := netip.AddrPortFrom(packet.Dst, packet.DstPort)
	switch outcome.Fate {
	case ruleset.Dropped, ruleset.Rejected:
		word := "dropped"
		if outcome.Fate == ruleset.Rejected {
			word = "rejected, and the sender is told"
		}
		leg.Outcome = fmt.Sprintf("It is %s (%s).", word, leg.why())
		return End{Kind: EndBlocked, Proxied: proxied, Text: fmt.Sprintf("it is %s (%s)", word, leg.why())}, ""
	case ruleset.Redirected, ruleset.TProxied:
		if !w.reachesProxy(leg) {
			leg.Outcome = fmt.Sprintf("It is sent to port %d of this pod, which is not one of the proxy's.", outcome.Port)
			return End{Kind: EndApp, Proxied: proxied, Sees: packet.Src, Text: fmt.Sprintf(
				"it reaches what listens on port %d", outcome.Port)}, ""
		}
		how := fmt.Sprintf("it asks the kernel where the connection was going: %s", to)
		if outcome.Fate == ruleset.TProxied {
			how = fmt.Sprintf("its socket has the address that the connection was going to: %s", to)
		}
		leg.Outcome = fmt.Sprintf("The proxy gets it, on port %d; %s.", outcome.Port, how)
		return End{}, w.roleOf(leg)
	case ruleset.Rewritten:
		leg.Outcome = fmt.Sprintf("It gets another destination (%s) and leaves the pod.", leg.why())
		return End{Kind: EndOutside, Proxied: proxied, Sees: packet.Src, Text: fmt.Sprintf(
			"it leaves the pod for another destination than %s", to)}, ""
	case ruleset.Unknown:
		leg.Outcome = fmt.Sprintf("It is not known what happens: %s.", leg.why())
		return End{Kind: EndUnknown, Proxied: proxied, Text: "it is not known what a rule does: " + leg.why()}, ""
	case ruleset.Local:
		leg.Outcome = fmt.Sprintf("It stays in the pod, though %s is not an address of the pod.", packet.Dst)
		return End{Kind: EndBlocked, Proxied: proxied, Text: fmt.Sprintf(
			"it is kept in the pod, where nothing listens for %s", to)}, ""
	}
	return w.unchanged(leg, proxied), ""
}

// unchanged is where a leg ends that no rule diverts.
func (w *walker) unchanged(leg *Leg, proxied bool) End {
	packet := leg.Packet
	to := netip.AddrPortFrom(packet.Dst, packet.DstPort)
	end := End{Kind: EndApp, Proxied: proxied, Sees: packet.Src, Text: fmt.Sprintf("it reaches what listens on %s", to)}
	switch {
	case !w.isLocal(&leg.sent) && packet.Direction == ruleset.In:
		leg.Outcome = "It is not for this pod."
		return End{Kind: EndBlocked, Text: fmt.Sprintf("%s is not an address of the pod", packet.Dst)}
	case !w.isLocal(&leg.sent):
		end.Kind, end.Text = EndOutside, fmt.Sprintf("it leaves the pod for %s", to)
	case leg.From == TheProxy && w.callsProxy(&leg.sent):
		end = End{Kind: EndLoop, Proxied: true, Text: fmt.Sprintf("port %d is the proxy's own: it connects to itself, "+
			"unless it closes such connections, as Envoy does in Shunt's pods", packet.DstPort)}
	}
	leg.Outcome = fmt.Sprintf("It reaches what listens on %s (%s).", to, leg.why())
	if end.Kind == EndOutside {
		leg.Outcome = fmt.Sprintf("It leaves the pod for %s (%s).", to, leg.why())
	}
	return end
}

// roleOf says what the proxy does with a connection that it got on a port.
func (w *walker) roleOf(leg *Leg) role {
	outcome := leg.Path.Outcome
	onePort := w.proxy.Inbound == w.proxy.Outbound
	switch {
	case outcome.Fate == ruleset.TProxied && (onePort || !w.got(leg, w.proxy.Outbound)):
		return roleInbound
	case w.got(leg, w.proxy.DNS):
		return roleDNS
	case !w.got(leg, w.proxy.Inbound), onePort && !w.isLocal(&leg.sent):
		return roleOutbound
	}
	return roleInbound
}

// hop returns the first packet of the connection that the proxy opens for one that
// it got.
func (w *walker) hop(leg *Leg, as role, port uint16) ruleset.Flow {
	got := &leg.sent
	hop := ruleset.Flow{Packet: ruleset.Packet{
		Direction: ruleset.Out, Family: got.Packet.Family, UID: w.proxy.UID, GID: w.proxy.GID, State: ruleset.New, Src: w.side.Address(),
	}}
	hop.TakeProtocol(got)
	hop.TakeDestination(got)
	hop.TakePort(got)
	hop.Packet.SrcPort = port
	if w.survey != nil {
		w.survey.FreshPort(&hop)
	}
	hop.Packet.Mark = w.proxy.ownMark()
	switch {
	case as != roleInbound:
		if w.isLocal(&hop) {
			hop.CallItself()
		}
	case w.proxy.Transparent:
		hop.TakeSource(got)
		hop.Packet.Mark = w.proxy.Mark
	case w.proxy.Inbound == w.proxy.Outbound:
		hop.TakeDestination(&ruleset.Flow{Packet: ruleset.Packet{Dst: loopback(w.side.Family)}})
		hop.CallItself()
	default:
		hop.Packet.Src = passthrough(w.side.Family)
	}
	return hop
}

// passthrough is the source address of a proxy's connections to the app that is not
// transparent.
func passthrough(family ruleset.Family) netip.Addr {
	if family == ruleset.IPv6 {
		return netip.MustParseAddr("::6")
	}
	return netip.MustParseAddr("127.0.0.6")
}

func loopback(family ruleset.Family) netip.Addr {
	if family == ruleset.IPv6 {
		return netip.IPv6Loopback()
	}
	return netip.MustParseAddr("127.0.0.1")
}

// unbindable says why the proxy cannot open its connection; "" if it can.
func (w *walker) unbindable(as role) string {
	source := passthrough(w.side.Family)
	if as != roleInbound || w.proxy.Transparent || w.proxy.Inbound == w.proxy.Outbound || source.Is4() || w.side.local(source) {
		return ""
	}
	return fmt.Sprintf("the proxy cannot connect to the app: lo has no address %s/128, from which it connects", source)
}
