package ruleset

import (
	"slices"
	"strconv"
	"strings"
)

func (m Source) matches(h *hop) bool       { return m.Prefix.Contains(h.Src) != m.Not }
func (m Destination) matches(h *hop) bool  { return m.Prefix.Contains(h.Dst) != m.Not }
func (m InInterface) matches(h *hop) bool  { return matchesName(m.Name, h.in) != m.Not }
func (m OutInterface) matches(h *hop) bool { return matchesName(m.Name, h.out) != m.Not }
func (m Protocol) matches(h *hop) bool     { return m.holds(h.Packet.Protocol) }

func (m Ports) matches(h *hop) bool {
	port := h.DstPort
	if m.Source {
		port = h.SrcPort
	}
	return (m.Protocol == "" || m.Protocol == h.Packet.Protocol) && m.Ranges.Contains(port) != m.Not
}

// matches takes the first packet of a tcp connection for its SYN, also of one
// that another connection announced.
func (m SYN) matches(h *hop) bool { return h.Packet.Protocol == "tcp" && h.opens != m.Not }

// matches is false for packets that no process of this host made: they have
// no socket yet.
func (m Owner) matches(h *hop) bool {
	if h.hook != "OUTPUT" && h.hook != "POSTROUTING" {
		return false
	}
	id := h.UID
	if m.Group {
		id = h.GID
	}
	return (m.First <= id && id <= m.Last) != m.Not
}

func (m Mark) matches(h *hop) bool {
	mark := h.Packet.Mark
	if m.Connection {
		mark = h.connMark()
	}
	return (mark&m.Mask == m.Value) != m.Not
}

func (m Conntrack) matches(h *hop) bool { return slices.Contains(m.States, h.seen()) != m.Not }

func (m AddressType) matches(h *hop) bool {
	a := h.Src
	if m.Destination {
		a = h.Dst
	}
	return h.host.local(a) != m.Not
}

// matches is not asked: a walk is told which rules to take for met.
func (OpaqueMatch) matches(*hop) bool { return false }

// matchesName compares an interface's name with iptables' pattern.
func matchesName(pattern, name string) bool {
	if stem, wild := strings.CutSuffix(pattern, "+"); wild {
		return name != "" && strings.HasPrefix(name, stem)
	}
	return pattern == name
}

func (v Verdict) apply(h *hop) action {
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

func (Reject) apply(h *hop) action {
	h.seal(Rejected)
	return actionStop
}

func (Jump) apply(*hop) action { return actionJump }

// apply rewrites the destination: to loopback for a packet of this host, to
// the host's address for one that came in (iptables-extensions(8)).
func (r Redirect) apply(h *hop) action {
	if h.hook == "OUTPUT" {
		h.Dst = h.Family.loopback()
	} else {
		h.Dst = h.host.address(h.Family)
	}
	return h.rewritten(r.Port)
}

func (d DNAT) apply(h *hop) action {
	if d.Address.IsValid() {
		h.Dst = d.Address
	}
	return h.rewritten(d.Port)
}

// rewritten gives the packet its new port, 0 for the one that it has. What
// TPROXY has given to a socket stays there.
func (h *hop) rewritten(port uint16) action {
	h.mapped = true
	if port != 0 {
		h.DstPort = port
	}
	switch {
	case h.fate == TProxied:
	case h.host.local(h.Dst):
		h.fate, h.port = Redirected, h.DstPort
	default:
		h.fate, h.port = Rewritten, h.DstPort
	}
	return actionAccept
}

// apply leaves the rest to the routing of what came in.
func (Nowhere) apply(h *hop) action {
	h.Dst, h.mapped = IPv4.unspecified(), true
	return actionAccept
}

func (t TProxy) apply(h *hop) action {
	h.Packet.Mark = h.Packet.Mark&^t.Mask ^ t.Mark
	h.fate, h.port = TProxied, t.Port
	return actionAccept
}

// connMark is the mark of the connection that the packet is of, so far as
// conntrack knows one.
func (h *hop) connMark() uint32 {
	if !h.tracked || h.State == Untracked {
		return 0
	}
	return h.ConnMark
}

// markConnection does nothing to a packet that has no connection.
func (h *hop) markConnection(mark uint32) {
	if h.tracked && h.State != Untracked {
		h.ConnMark = mark
	}
}

func (s SetMark) apply(h *hop) action {
	if s.Connection {
		h.markConnection(h.ConnMark&^s.Mask ^ s.Value)
	} else {
		h.Packet.Mark = h.Packet.Mark&^s.Mask ^ s.Value
	}
	return actionContinue
}

func (s SaveMark) apply(h *hop) action {
	h.markConnection(h.ConnMark&^s.connection() ^ h.Packet.Mark&s.packet())
	return actionContinue
}

func (r RestoreMark) apply(h *hop) action {
	if h.tracked && h.State != Untracked {
		h.Packet.Mark = h.Packet.Mark&^r.packet() ^ h.ConnMark&r.connection()
	}
	return actionContinue
}

// apply puts a packet into a zone before conntrack has seen it; afterwards it
// is too late.
func (z ConntrackZone) apply(h *hop) action {
	if !h.tracked {
		h.zone = z.Zone
	}
	return actionContinue
}

// apply takes a packet from conntrack before that has seen it; afterwards it
// is too late.
func (NoTrack) apply(h *hop) action {
	if !h.tracked {
		h.State = Untracked
	}
	return actionContinue
}

// apply does one thing after the other until one ends the rule.
func (all Sequence) apply(h *hop) action {
	for _, t := range all {
		if end := t.apply(h); end != actionContinue {
			return end
		}
	}
	return actionContinue
}

// passive reports whether the rule changes nothing about where any packet goes.
func (r Rule) passive() bool {
	opaque, ok := r.Target.(OpaqueTarget)
	return r.Target == nil || ok && opaque.passive()
}

func (t OpaqueTarget) apply(h *hop) action {
	if t.passive() {
		return actionContinue
	}
	if meaning := t.meaning(h.Family); meaning != nil {
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

// String prints where the rule stands, and the rule.
func (s Step) String() string {
	if s.Number == 0 {
		return s.Table + " " + s.Chain + ": policy " + string(Drop)
	}
	return s.Table + " " + s.Chain + " " + strconv.Itoa(s.Number) + ": " + s.Rule.String()
}

// Acts reports whether the rule of the step can change where a packet goes.
func (s Step) Acts() bool {
	_, leads := s.Rule.jump()
	return !s.Rule.passive() && !leads
}
