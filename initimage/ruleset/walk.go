package ruleset

import (
	"slices"
	"strconv"
	"strings"
)

func (m Source) matches(h *traversal) bool       { return m.Prefix.Contains(h.Src) != m.Not }
func (m Destination) matches(h *traversal) bool  { return m.Prefix.Contains(h.Dst) != m.Not }
func (m InInterface) matches(h *traversal) bool  { return matchesName(m.Name, h.in) != m.Not }
func (m OutInterface) matches(h *traversal) bool { return matchesName(m.Name, h.out) != m.Not }
func (m Protocol) matches(h *traversal) bool     { return m.accepts(h.Packet.Protocol) }

func (m Ports) matches(h *traversal) bool {
	port := h.DstPort
	if m.Source {
		port = h.SrcPort
	}
	return (m.Protocol == "" || m.Protocol == h.Packet.Protocol) && m.Ranges.Contains(port) != m.Not
}

// matches takes the first packet of a tcp connection for its SYN, also if another
// connection announced it.
func (m SYN) matches(h *traversal) bool { return h.Packet.Protocol == "tcp" && h.opens != m.Not }

// matches returns false for packets that no process of this host made: they have no
// socket yet.
func (m Owner) matches(h *traversal) bool {
	if h.hook != "OUTPUT" && h.hook != "POSTROUTING" {
		return false
	}
	id := h.UID
	if m.Group {
		id = h.GID
	}
	return (m.First <= id && id <= m.Last) != m.Not
}

func (m Mark) matches(h *traversal) bool {
	mark := h.Packet.Mark
	if m.Connection {
		mark = h.connMark()
	}
	return (mark&m.Mask == m.Value) != m.Not
}

func (m Conntrack) matches(h *traversal) bool {
	return slices.Contains(m.States, h.conntrackState()) != m.Not
}

func (m AddressType) matches(h *traversal) bool {
	a := h.Src
	if m.Destination {
		a = h.Dst
	}
	return h.host.local(a) != m.Not
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

// apply rewrites the destination: to loopback for a packet of this host, to the
// host's address for one that came in (iptables-extensions(8)).
func (r Redirect) apply(h *traversal) action {
	if h.hook == "OUTPUT" {
		h.Dst = h.Family.loopback()
	} else {
		h.Dst = h.host.address(h.Family)
	}
	return h.rewritten(r.Port)
}

func (d DNAT) apply(h *traversal) action {
	if d.Address.IsValid() {
		h.Dst = d.Address
	}
	return h.rewritten(d.Port)
}

// rewritten gives the packet its new port; 0 keeps the old one. A packet that
// TPROXY has given to a socket stays there.
func (h *traversal) rewritten(port uint16) action {
	h.translated = true
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
func (Nowhere) apply(h *traversal) action {
	h.Dst, h.translated = IPv4.unspecified(), true
	return actionAccept
}

func (t TProxy) apply(h *traversal) action {
	h.Packet.Mark = h.Packet.Mark&^t.Mask ^ t.Mark
	h.fate, h.port = TProxied, t.Port
	return actionAccept
}

// connMark returns the mark of the packet's connection, if conntrack knows one.
func (h *traversal) connMark() uint32 {
	if !h.tracked || h.State == Untracked {
		return 0
	}
	return h.ConnMark
}

// markConnection does nothing to a packet that has no connection.
func (h *traversal) markConnection(mark uint32) {
	if h.tracked && h.State != Untracked {
		h.ConnMark = mark
	}
}

func (s SetMark) apply(h *traversal) action {
	if s.Connection {
		h.markConnection(h.ConnMark&^s.Mask ^ s.Value)
	} else {
		h.Packet.Mark = h.Packet.Mark&^s.Mask ^ s.Value
	}
	return actionContinue
}

func (s SaveMark) apply(h *traversal) action {
	h.markConnection(h.ConnMark&^s.connection() ^ h.Packet.Mark&s.packet())
	return actionContinue
}

func (r RestoreMark) apply(h *traversal) action {
	if h.tracked && h.State != Untracked {
		h.Packet.Mark = h.Packet.Mark&^r.packet() ^ h.ConnMark&r.connection()
	}
	return actionContinue
}

// apply puts a packet into a zone, unless conntrack has seen it: then it is too
// late.
func (z ConntrackZone) apply(h *traversal) action {
	if !h.tracked {
		h.zone = z.Zone
	}
	return actionContinue
}

// apply hides a packet from conntrack, unless conntrack has seen it: then it is too
// late.
func (NoTrack) apply(h *traversal) action {
	if !h.tracked {
		h.State = Untracked
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
		return actionContinue
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

// Acts reports whether the rule of the step can change where a packet goes.
func (s Step) Acts() bool {
	_, leads := s.Rule.jump()
	return !s.Rule.passive() && !leads
}
