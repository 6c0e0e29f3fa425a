package ruleset

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

func (m Source) matches(h *traversal) bool       { return h.sourceIn(m.Prefix) != m.Not }
func (m Destination) matches(h *traversal) bool  { return h.destinationIn(m.Prefix) != m.Not }
func (m InInterface) matches(h *traversal) bool  { return h.cameBy(m.Name) != m.Not }
func (m OutInterface) matches(h *traversal) bool { return matchesName(m.Name, h.out) != m.Not }
func (m Protocol) matches(h *traversal) bool     { return h.isProtocol(m) }

func (m Ports) matches(h *traversal) bool {
	return (m.Protocol == "" || h.isProtocol(Protocol{Name: m.Protocol})) && h.portIn(m.Source, m.Ranges) != m.Not
}

// matches takes the first packet of a tcp connection for its SYN, also if another
// connection announced it.
func (m SYN) matches(h *traversal) bool { return h.isProtocol(tcp) && h.opens != m.Not }

// matches compares the owner of a packet's socket. A packet that comes in has none
// yet: iptables takes it for one of another owner, nf_tables for none at all. Where
// a socket awaits it, nf_tables looks at that, whose owner is not known here.
func (m Owner) matches(h *traversal) bool {
	switch {
	case h.native && h.hook == "INPUT" && (h.fate == TProxied || h.hasState(Established)):
		h.seal(Unknown)
		return false
	case h.hook != "OUTPUT" && h.hook != "POSTROUTING":
		return false
	case h.Direction == In:
		return m.Not && !h.native
	}
	return h.ownedBy(m) != m.Not
}

// matches returns false for the mark of a connection that conntrack does not know,
// negated or not.
func (m Mark) matches(h *traversal) bool {
	if m.Connection {
		return (h.isTracked() || h.templated && !h.tracked) && h.connectionMarked(m.Value, m.Mask) != m.Not
	}
	return h.marked(m.Value, m.Mask) != m.Not
}

func (m SocketMark) matches(h *traversal) bool { return h.Answer && h.socketMarked(m.Value, m.Mask) }

func (m Conntrack) matches(h *traversal) bool {
	if !h.tracked && !h.hasState(Untracked) { // conntrack has not seen it yet
		state := Invalid
		if h.templated {
			state = New
		}
		return slices.Contains(m.States, state) != m.Not
	}
	return h.hasState(m.States...) != m.Not
}

func (m AddressType) matches(h *traversal) bool {
	if m.Destination {
		return h.destinationLocal() != m.Not
	}
	return h.sourceLocal() != m.Not
}

// matches is never called: a walk is told which opaque rules accept.
func (OpaqueMatch) matches(*traversal) bool { return false }

// matchesName compares an interface's name with iptables' pattern.
func matchesName(pattern, name string) bool {
	if stem, wild := strings.CutSuffix(pattern, "+"); wild {
		return name != "" && strings.HasPrefix(name, stem)
	}
	return pattern == name
}

func (v Verdict) apply(h *traversal) action {
	switch v {
	case Accept:
		return actionAccept
	case Drop:
		h.seal(Dropped)
		return actionStop
	default:
		return actionReturn
	}
}

func (Reject) apply(h *traversal) action {
	h.seal(Rejected)
	return actionStop
}

func (Jump) apply(*traversal) action { return actionJump }

// apply rewrites the destination: to loopback for a packet of this host, to an
// address of its interface for one that came in (iptables-extensions(8)).
func (r Redirect) apply(h *traversal) action {
	switch {
	case h.hook == "OUTPUT":
		return h.rewritten(h.Family.loopback(), r.Port)
	case h.Family == IPv6 && h.destinationIn(compatible): // the kernel looks for an address of this scope
		h.seal(Dropped)
		return actionStop
	}
	for _, i := range h.host.Interfaces {
		if at := slices.IndexFunc(i.Addresses, h.Family.Of); at >= 0 && h.cameBy(i.Name) {
			return h.rewritten(i.Addresses[at], r.Port)
		}
	}
	return h.rewritten(h.host.address(h.Family), r.Port)
}

func (d DNAT) apply(h *traversal) action {
	return h.rewritten(d.Address, d.Port)
}

// rewritten gives the packet its new destination. An address that is not valid, and
// port 0, keep the old one. A packet that TPROXY has given to a socket stays there.
func (h *traversal) rewritten(address netip.Addr, port uint16) action {
	h.translated = true
	if address.IsValid() {
		h.setDestination(address)
	}
	if port != 0 {
		h.setPort(port)
	}
	switch {
	case h.fate == TProxied:
	case h.destinationLocal():
		h.fate, h.port = Redirected, h.DstPort
	default:
		h.fate, h.port = Rewritten, h.DstPort
	}
	return actionAccept
}

// apply leaves the rest to the routing of what came in. In nf_tables' own chains,
// nat may drop.
func (Nowhere) apply(h *traversal) action {
	if h.compiled {
		h.seal(Dropped)
		return actionStop
	}
	h.setDestination(IPv4.unspecified())
	h.translated = true
	return actionAccept
}

// apply ends the table in iptables. nf_tables goes on, and a later rule may give the
// packet to another socket. It does not apply the rest of the rule to a packet that a
// socket of this host awaits.
func (t TProxy) apply(h *traversal) action {
	h.setMark(t.Mask, t.Mark)
	if h.Answer && (h.native || h.compiled || h.ownRule) && h.isProtocol(tcp) {
		return actionNext
	}
	h.fate, h.port = TProxied, t.Port
	if h.native {
		return actionContinue
	}
	return actionAccept
}

func (s SetMark) apply(h *traversal) action {
	if s.Connection {
		h.setConnectionMark(s.Mask, s.Value)
	} else {
		h.setMark(s.Mask, s.Value)
	}
	return actionContinue
}

func (s SaveMark) apply(h *traversal) action {
	h.saveMark(s.connection(), s.packet())
	return actionContinue
}

func (r RestoreMark) apply(h *traversal) action {
	h.restoreMark(r.packet(), r.connection())
	return actionContinue
}

// apply puts a packet into a zone, unless conntrack has seen it, or another rule has
// told conntrack what to do with it: then it is too late.
func (z ConntrackZone) apply(h *traversal) action {
	if !h.tracked && !h.templated && !h.hasState(Untracked) {
		h.zone, h.templated = z.Zone, true
	}
	return actionContinue
}

// apply hides a packet from conntrack, unless it is too late as for a zone.
func (NoTrack) apply(h *traversal) action {
	if !h.tracked && !h.templated {
		h.setState(Untracked)
	}
	return actionContinue
}

// apply applies the targets in turn, until one ends the rule.
func (all Sequence) apply(h *traversal) action {
	for _, t := range all {
		if end := t.apply(h); end != actionContinue {
			return end
		}
	}
	return actionContinue
}

// passive reports whether the rule leaves alone where packets go.
func (r Rule) passive() bool {
	opaque, ok := r.Target.(OpaqueTarget)
	return r.Target == nil || ok && opaque.passive()
}

func (t OpaqueTarget) apply(h *traversal) action {
	if t.passive() {
		return t.pass(h)
	}
	if meaning := t.equivalent(h.Family); meaning != nil {
		return meaning.apply(h)
	}
	h.seal(Unknown)
	return actionStop
}

// String prints an outcome as cases write it: "direct", "redirect 15001".
func (o Outcome) String() string {
	if o.Port == 0 {
		return string(o.Fate)
	}
	return string(o.Fate) + " " + strconv.Itoa(int(o.Port))
}

// String prints the rule and its place.
func (s Step) String() string {
	if s.Number == 0 {
		return s.Table + " " + s.Chain + ": policy " + string(Drop)
	}
	return s.Table + " " + s.Chain + " " + strconv.Itoa(s.Number) + ": " + s.Rule.String()
}

// Blocks reports whether the rule of the step says that the packet gets nowhere.
func (s Step) Blocks() bool {
	_, rejects := s.Rule.Target.(Reject)
	return rejects || s.Rule.Target == Drop
}

// Acts reports whether the rule of the step can change where a packet goes.
func (s Step) Acts() bool {
	_, leads := s.Rule.jump()
	return !s.Rule.passive() && !leads
}
