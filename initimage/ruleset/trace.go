package ruleset

import (
	"net/netip"
	"strings"
)

// Step is one rule that a packet met the conditions of.
type Step struct {
	Table, Chain string
	Number       int // place in the chain, from 1, as iptables counts
	Rule         Rule
}

// Path is the way of a packet: the rules that took part and where it ended.
type Path struct {
	Steps   []Step
	Met     int // rules that the packet was held against, whether or not they took part
	Outcome Outcome
}

// maxRules bounds a walk. A rule set that a kernel has accepted is far below
// it; one that jumps in circles, which no kernel accepts, ends here.
const maxRules = 1 << 16

// maxDepth is the number of jumps that nf_tables allows (NFT_JUMP_STACK_SIZE).
const maxDepth = 16

// Trace walks a packet through the rules of a host and tells where it ends.
//
// A packet of a process passes the OUTPUT hooks and leaves; if it is routed to
// lo it comes in again, and without a route it is dropped. A packet that comes
// in passes the PREROUTING hooks and is delivered or forwarded, if the kernel
// routes packets with its addresses. The nat tables see only the first packet of a
// connection, and for a packet that comes back over lo only those of OUTPUT:
// its destination has been settled there.
func Trace(rs RuleSet, host Host, p Packet) Path {
	if p.State == "" {
		p.State = New
	}
	if p.Direction == Out && !p.Src.IsValid() {
		p.Src = sourceFor(host, p)
	}
	h := &hop{rules: &rs, host: host, Packet: p}
	if p.Direction == Out {
		h.bound = p.Interface
		h.output()
	} else {
		h.in = p.Interface
		h.input()
	}
	return Path{Steps: h.steps, Met: h.met, Outcome: h.outcome()}
}

// sourceFor is the address that the kernel gives a socket that names none: the
// destination itself where that is the host's own.
func sourceFor(host Host, p Packet) netip.Addr {
	if host.local(p.Dst) {
		return p.Dst
	}
	return host.address(p.Family)
}

// hop is a packet on its way, changed by the rules as it goes.
type hop struct {
	Packet
	rules   *RuleSet
	host    Host
	hook    string
	in, out string // interfaces
	bound   string // interface that the sending socket is bound to
	natted  bool   // nat has settled the destination
	fate    Fate   // set once a rule has decided
	port    uint16 // of that fate
	steps   []Step
	met     int
}

// loopbackName is the name of the loopback interface in every namespace.
const loopbackName = "lo"

// route returns the interface that the packet leaves by, "" for none. The
// table of local addresses has precedence over every rule (ip-rule(8),
// priority 0).
func (h *hop) route() string {
	switch {
	case h.own() || h.rules.Routing.local(h.Src, h.Mark, h.bound):
		return loopbackName
	case h.bound == loopbackName:
		return ""
	}
	return h.host.Uplink
}

// own reports whether the table of local addresses takes the packet. Over IPv6
// it holds an address by the interface that has it, and a socket that is bound
// to lo does not find those of the others.
func (h *hop) own() bool {
	found := h.bound != loopbackName || h.Family == IPv4 || h.Dst.IsLoopback()
	return found && h.host.local(h.Dst)
}

// depart settles the interface that the packet leaves by, and drops the packet
// where there is none.
func (h *hop) depart() {
	if h.out = h.route(); h.out == "" {
		h.seal(Dropped)
	}
}

// output takes the packet from its process to where it leaves, and back in
// where that is lo.
func (h *hop) output() {
	h.depart()
	if h.sealed() || h.cutOff(h.out) {
		return
	}
	for _, table := range tableOrder {
		h.pass(table, "OUTPUT")
		h.depart()
	}
	for _, table := range tableOrder {
		h.pass(table, "POSTROUTING")
	}
	if h.fate == "" || h.fate == Redirected {
		if h.out == loopbackName {
			h.in, h.out, h.natted = loopbackName, "", true
			h.input()
		}
	}
}

// cutOff drops a packet that has to leave a host that is cut off.
func (h *hop) cutOff(out string) bool {
	if h.rules.Routing.Unreachable && out != loopbackName {
		h.seal(Dropped)
	}
	return h.sealed()
}

// input takes the packet from its interface to a local socket, or to where it
// is forwarded.
func (h *hop) input() {
	if h.Direction == In && h.cutOff(h.in) {
		return // it may come in, but its answer cannot leave
	}
	fromOutside := h.in != loopbackName
	if fromOutside && (h.Src == netip.IPv6Loopback() || h.Dst == netip.IPv6Loopback()) {
		h.seal(Dropped) // before netfilter sees it
		return
	}
	for _, table := range tableOrder {
		h.pass(table, "PREROUTING")
	}
	if fromOutside && !h.sealed() && h.martian() {
		h.seal(Dropped)
		return
	}
	hook := "INPUT"
	if h.fate != TProxied && h.route() != loopbackName {
		hook = "FORWARD"
	}
	for _, table := range tableOrder {
		h.pass(table, hook)
	}
}

// martian reports whether the kernel routes no packet from outside with such
// addresses. A destination in 127.0.0.0/8 is not among them: whether it takes
// that is up to the pod's route_localnet, which others set.
func (h *hop) martian() bool {
	return ThisHost(h.Src) || ThisHost(h.Dst) && (!h.Dst.Is4() || !h.Dst.IsLoopback())
}

// outcome is where the packet ended, once nothing is left to walk.
func (h *hop) outcome() Outcome {
	switch {
	case h.fate != "":
		return Outcome{h.fate, h.port}
	case !h.host.local(h.Dst) && h.route() == loopbackName:
		return Outcome{Fate: Local}
	}
	return Outcome{Fate: Direct}
}

// sealed reports whether nothing that follows can change the packet's fate.
func (h *hop) sealed() bool {
	return h.fate == Dropped || h.fate == Rejected || h.fate == Unknown
}

// pass walks one table at one hook.
func (h *hop) pass(table, hook string) {
	if h.sealed() || table == "nat" && h.skipsNAT(hook) {
		return
	}
	c := h.rules.Chain(table, hook)
	if c == nil {
		return
	}
	h.hook = hook
	if end := h.walk(table, c, 0); end != actionAccept && c.Policy == string(Drop) && !h.sealed() {
		h.seal(Dropped)
	}
}

func (h *hop) skipsNAT(hook string) bool {
	settled := h.natted && (hook == "PREROUTING" || hook == "OUTPUT")
	return !h.first() || settled
}

// first reports whether the packet opens a connection.
func (h *hop) first() bool { return h.State == New || h.State == Related }

func (h *hop) seal(f Fate) { h.fate, h.port = f, 0 }

// walk goes through a chain until a rule ends it.
func (h *hop) walk(table string, c *Chain, depth int) action {
	for i, r := range c.Rules {
		if h.met++; h.met > maxRules {
			h.seal(Unknown)
			return actionStop
		}
		if !h.meets(r) {
			continue
		}
		h.steps = append(h.steps, Step{table, c.Name, i + 1, r})
		end := h.apply(table, r, depth)
		if h.sealed() {
			return actionStop
		}
		switch end {
		case actionReturn:
			return actionContinue
		case actionAccept, actionStop:
			return end
		}
	}
	return actionContinue
}

func (h *hop) apply(table string, r Rule, depth int) action {
	if r.passive() {
		return actionContinue
	}
	for _, m := range r.Matches {
		if _, opaque := m.(OpaqueMatch); opaque {
			h.seal(Unknown)
			return actionStop
		}
	}
	end := r.Target.apply(h)
	if end != actionJump {
		return end
	}
	next := h.rules.Chain(table, r.Target.(Jump).Chain)
	if next == nil || depth == maxDepth {
		h.seal(Unknown)
		return actionStop
	}
	return h.walk(table, next, depth+1)
}

func (h *hop) meets(r Rule) bool {
	for _, m := range r.Matches {
		if !m.matches(h) {
			return false
		}
	}
	return true
}

// String prints the path, a rule a line, and where it ends.
func (p Path) String() string {
	var b strings.Builder
	for _, s := range p.Steps {
		b.WriteString(s.String() + "\n")
	}
	b.WriteString("-> " + p.Outcome.String() + "\n")
	return b.String()
}
