package ruleset

import (
	"fmt"
	"strings"
)

// RoutingHook is the name of a Hook where the kernel looks up where a packet goes.
// It is not one of netfilter's.
const RoutingHook = "ROUTING"

// Hook is a place of the kernel that a packet passed: one of netfilter's hooks, or a
// look at the routing tables.
type Hook struct {
	Name    string // PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING, or RoutingHook
	Packet  Packet // as it comes there
	In, Out string // interfaces
	Passes  []Pass // the base chains of the hook, in the kernel's order; none where no table has one
	Route   string // of RoutingHook: which way, and why
}

// Pass is a packet's way through one base chain and the chains that it jumps to.
type Pass struct {
	Table, Chain string
	Priority     int
	Foreign      bool   // the table cannot hold rules of Shunt
	Skipped      string // why the kernel does not call the chain for this packet; "" if it does
	Met          []Met
	Changes      []Change // what the chain did to the packet
}

// Met is a rule that accepted the packet, or the end of a chain.
type Met struct {
	Step
	Depth int // number of jumps from the base chain
	// Of is the number of rules of the chain. A Met with Number 0 is its end: the
	// policy of a base chain, and otherwise the way back to the calling chain.
	Of int
}

// Change is a field of the packet before and after a base chain.
type Change struct{ Field, Before, After string }

// Follow walks a packet through all rules of the stack as Trace does, with nothing
// assumed, and records in Path.Hooks all that the packet passed. A rule whose
// matches are not understood accepts the packet or not, as decided says. If decided
// does not name it, the packet's fate is unknown, and Path.Undecided is the rule.
func (s *Stack) Follow(host Host, packet Packet, decided map[*Rule]bool) Path {
	s.decided, s.following = decided, true
	defer func() { s.decided, s.following = nil, false }()
	return s.trace(&host, packet, nil, true)
}

// enter records that the packet comes to a hook.
func (h *traversal) enter(hook string) {
	if h.stack.following {
		h.hooks = append(h.hooks, Hook{Name: hook, Packet: h.Packet, In: h.in, Out: h.out})
	}
}

// begin records that the packet comes to a base chain, and why it passes it by if
// it does. A packet that was routed again comes to the hook a second time, for what
// is left of its chains.
func (h *traversal) begin(b *base, skipped string) {
	if !h.stack.following {
		return
	}
	if h.hooks[len(h.hooks)-1].Name == RoutingHook {
		h.enter(h.hook)
	}
	at := &h.hooks[len(h.hooks)-1]
	at.Passes = append(at.Passes, Pass{Table: b.table, Chain: b.chain.Name, Priority: b.priority, Foreign: b.foreign, Skipped: skipped})
}

// end records what a base chain did to the packet.
func (h *traversal) end(before *Packet) {
	if !h.stack.following {
		return
	}
	at := &h.hooks[len(h.hooks)-1]
	pass := &at.Passes[len(at.Passes)-1]
	change := func(field string, old, now any) {
		if was, is := fmt.Sprint(old), fmt.Sprint(now); was != is {
			pass.Changes = append(pass.Changes, Change{field, was, is})
		}
	}
	change("destination", before.Dst, h.Dst)
	change("port", before.DstPort, h.DstPort)
	change("mark", fmt.Sprintf("%#x", before.Mark), fmt.Sprintf("%#x", h.Packet.Mark))
	change("connection mark", fmt.Sprintf("%#x", before.ConnMark), fmt.Sprintf("%#x", h.ConnMark))
	change("state", before.State, h.State)
}

// meet records a rule that accepted the packet, or with number 0 the end of a chain.
func (h *traversal) meet(step Step, depth, of int) {
	if h.stack.following && len(h.hooks) > 0 {
		at := &h.hooks[len(h.hooks)-1]
		pass := &at.Passes[len(at.Passes)-1]
		pass.Met = append(pass.Met, Met{step, depth, of})
	}
}

// routed records which way the routing tables send the packet, and why.
func (h *traversal) routed(out string) {
	if !h.stack.following || h.sealed() {
		return
	}
	way := out
	switch {
	case h.localTable():
		way = fmt.Sprintf("lo: %s is an address of this pod", h.Dst)
	case out == loopbackName:
		if rule := h.decidingRule(); rule != nil {
			way = fmt.Sprintf("lo: ip rule %q, where every address is local", *rule)
		}
	case out == "":
		way = "nowhere: no route"
	default:
		way = fmt.Sprintf("%s: %s is not an address of this pod", out, h.Dst)
	}
	h.hooks = append(h.hooks, Hook{Name: RoutingHook, Packet: h.Packet, In: h.in, Out: out, Route: way})
}

// leave records the end of a chain that no rule has ended: Number 0, with the policy
// of a base chain, or RETURN. A policy that drops is recorded by pass.
func (h *traversal) leave(b *base, c *Chain, depth int) {
	if !h.stack.following || depth == 0 && c.Policy == string(Drop) {
		return
	}
	target := Return
	if depth == 0 {
		target = Accept
	}
	h.meet(Step{Table: b.table, Chain: c.Name, Rule: Rule{Target: target}, Foreign: b.foreign || !ownedChain(c.Name)}, depth, len(c.Rules))
}

// whyNotNAT says why a nat chain is not called for the packet.
func (h *traversal) whyNotNAT() string {
	switch {
	case h.translated:
		return "nat has already given the connection an address at this hook"
	case h.State == Untracked:
		return "conntrack does not track this packet, and nat goes by conntrack"
	case h.State == Established:
		return "nat looks only at the first packet of a connection"
	case h.State == Invalid:
		return "conntrack knows no connection of this packet, and nat goes by conntrack"
	}
	return "nat has settled where this connection goes, in OUTPUT"
}

// accepts reports whether a rule with a match that is not understood is taken to
// accept the packet as far as that match goes.
func (h *traversal) accepts(r *Rule) bool {
	if said, decided := h.stack.decided[r]; decided {
		return said
	}
	return h.assumed.holds(r)
}

// String prints the path, one rule a line, and where it ends.
func (p Path) String() string {
	var b strings.Builder
	for _, s := range p.Steps {
		b.WriteString(s.String() + "\n")
	}
	b.WriteString("-> " + p.Outcome.String() + "\n")
	return b.String()
}
