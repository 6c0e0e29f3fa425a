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
func (m Protocol) matches(h *hop) bool     { return (m.Name == h.Packet.Protocol) != m.Not }

func (m Ports) matches(h *hop) bool {
	port := h.DstPort
	if m.Source {
		port = h.SrcPort
	}
	return (m.Protocol == "" || m.Protocol == h.Packet.Protocol) && m.Ranges.Contains(port) != m.Not
}

// matches takes the first packet of a tcp connection for its SYN, also of one
// that another connection announced.
func (m SYN) matches(h *hop) bool { return h.Packet.Protocol == "tcp" && h.first() != m.Not }

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
		mark = h.ConnMark
	}
	return (mark&m.Mask == m.Value) != m.Not
}

func (m Conntrack) matches(h *hop) bool { return slices.Contains(m.States, h.State) != m.Not }

func (m AddressType) matches(h *hop) bool {
	a := h.Src
	if m.Destination {
		a = h.Dst
	}
	return h.host.local(a) != m.Not
}

// matches takes the rule for met; what its target does is then unknown.
func (OpaqueMatch) matches(*hop) bool { return true }

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
	h.DstPort = r.Port
	if h.fate != TProxied {
		h.fate, h.port = Redirected, r.Port
	}
	return actionAccept
}

// apply leaves the rest to the routing of what came in.
func (Nowhere) apply(h *hop) action {
	h.Dst = IPv4.unspecified()
	return actionAccept
}

func (t TProxy) apply(h *hop) action {
	h.Packet.Mark = h.Packet.Mark&^t.Mask ^ t.Mark
	h.fate, h.port = TProxied, t.Port
	return actionAccept
}

func (s SetMark) apply(h *hop) action {
	mark := &h.Packet.Mark
	if s.Connection {
		mark = &h.ConnMark
	}
	*mark = *mark&^s.Mask ^ s.Value
	return actionContinue
}

func (SaveMark) apply(h *hop) action {
	h.ConnMark = h.Packet.Mark
	return actionContinue
}

// apply does nothing that a walk of one packet would notice: a zone tells
// conntrack entries apart that are otherwise alike.
func (ConntrackZone) apply(*hop) action { return actionContinue }

func (RestoreMark) apply(h *hop) action {
	h.Packet.Mark = h.ConnMark
	return actionContinue
}

// passiveTargets of others look at a packet and let it go on.
var passiveTargets = []string{"LOG", "NFLOG", "TRACE"}

// passive reports whether the rule changes nothing about any packet.
func (r Rule) passive() bool {
	opaque, ok := r.Target.(OpaqueTarget)
	return r.Target == nil || ok && len(opaque.Args) > 1 && slices.Contains(passiveTargets, opaque.Args[1])
}

func (OpaqueTarget) apply(h *hop) action {
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
	return s.Table + " " + s.Chain + " " + strconv.Itoa(s.Number) + ": " + s.Rule.String()
}
