package ruleset

import (
	"net/netip"
	"strings"
)

// Step is one rule that a packet met the conditions of.
type Step struct {
	Table, Chain string
	Number       int // place in the chain, from 1, as iptables counts; 0 for the chain's policy
	Rule         Rule
	Foreign      bool // it is not Shunt's
}

// Path is the way of a packet: the rules that took part and where it ended.
type Path struct {
	Steps   []Step
	Met     int // rules that the packet was held against, whether or not they took part
	Outcome Outcome
	// Answer is a packet of the other end, as it comes in or as its process
	// sends it, with the connection's mark as this packet has left it.
	Answer Packet
	// Untracked says that conntrack was kept from the packet, so that nat does
	// not know it either.
	Untracked bool
	// Zone is conntrack's zone that the packet's connection is in.
	Zone uint16
}

// maxRules bounds a walk. A rule set that a kernel has accepted is far below
// it; one that jumps in circles, which no kernel accepts, ends here.
const maxRules = 1 << 16

// maxDepth is the number of jumps that nf_tables allows (NFT_JUMP_STACK_SIZE).
const maxDepth = 16

// Trace walks a packet through the rules of a host and tells where it ends.
func Trace(rs RuleSet, host Host, p Packet) Path {
	return NewStack(rs.Routing, rs).Trace(host, p, nil)
}

// Trace walks a packet through all rules of the stack and tells where it ends.
// Rules with a match that is not understood are taken for met if they are
// among those assumed, and for not met otherwise; where nothing is assumed,
// they make the packet's fate unknown.
//
// A packet of a process passes the OUTPUT hooks and leaves; if it is routed to
// lo it comes in again, and without a route it is dropped. A packet that comes
// in passes the PREROUTING hooks and is delivered or forwarded, if the kernel
// routes packets with its addresses. The nat tables see only the first packet of a
// connection, and for a packet that comes back over lo only those of OUTPUT:
// its destination has been settled there.
func (s *Stack) Trace(host Host, p Packet, assumed Assumption) Path {
	return s.trace(&host, p, assumed, true)
}

// trace walks a packet; the path has its steps only where they are wanted.
func (s *Stack) trace(host *Host, p Packet, assumed Assumption, steps bool) Path {
	if p.State == "" {
		p.State = New
	}
	if p.Direction == Out && !p.Src.IsValid() {
		p.Src = sourceFor(host, p)
	}
	h := &s.hop
	*h = hop{stack: s, host: host, assumed: assumed, recording: steps, Packet: p, opens: p.opens()}
	if p.Direction == Out {
		h.bound = p.Interface
		h.output()
	} else {
		h.in = p.Interface
		h.input()
	}
	return Path{Steps: h.steps, Met: h.met, Outcome: h.outcome(), Answer: h.answer(p), Untracked: h.State == Untracked, Zone: h.zone}
}

// opens reports whether the packet is the first of a connection.
func (p Packet) opens() bool { return (p.State == New || p.State == Related) && !p.Midstream }

// Assumption holds the rules whose matches that are not understood are taken
// for met; nil assumes nothing about any.
type Assumption map[*Rule]bool

// NoRule and EveryRule assume that none and that all of them are met.
var (
	NoRule    = Assumption{}
	EveryRule = Assumption{nil: true}
)

func (a Assumption) holds(r *Rule) bool { return a == nil || a[nil] || a[r] }

// sourceFor is the address that the kernel gives a socket that names none: the
// destination itself where that is the host's own.
func sourceFor(host *Host, p Packet) netip.Addr {
	if host.local(p.Dst) {
		return p.Dst
	}
	return host.address(p.Family)
}

// hop is a packet on its way, changed by the rules as it goes.
type hop struct {
	Packet
	stack   *Stack
	host    *Host
	assumed Assumption
	hook    string
	in, out string // interfaces
	bound   string // interface that the sending socket is bound to
	opens   bool   // it is the first packet of a connection
	looped  bool   // it comes in again over lo: conntrack knows it, and nat has settled its destination
	taken   bool   // by a socket of this host, which its destination is not an address of
	tracked bool   // conntrack has had its look at it
	zone    uint16 // of conntrack
	mapped  bool   // nat has given it an address at this hook
	fate    Fate   // set once a rule has decided
	port    uint16 // of that fate
	steps   []Step
	met     int

	recording bool // the steps are wanted
}

// step notes a rule that takes part.
func (h *hop) step(b *base, c *Chain, number int, r Rule, foreign bool) {
	if h.recording {
		h.steps = append(h.steps, Step{b.table, c.Name, number, r, foreign})
	}
}

// loopbackName is the name of the loopback interface in every namespace.
const loopbackName = "lo"

// route returns the interface that the packet leaves by, "" for none. The
// table of local addresses has precedence over every rule (ip-rule(8),
// priority 0).
func (h *hop) route() string {
	switch {
	case h.own() || h.stack.routing.local(h.Src, h.Mark, h.bound):
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
	h.passHook("OUTPUT")
	h.passHook("POSTROUTING")
	if h.out == loopbackName && !h.sealed() {
		h.in, h.out, h.looped = loopbackName, "", true
		h.input()
	}
}

// cutOff drops a packet that has to leave a host that is cut off.
func (h *hop) cutOff(out string) bool {
	if h.stack.routing.Unreachable && out != loopbackName {
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
	h.passHook("PREROUTING")
	if fromOutside && !h.sealed() && h.martian() {
		h.seal(Dropped)
		return
	}
	hook := "INPUT"
	if h.fate != TProxied && h.route() != loopbackName {
		hook = "FORWARD"
	}
	h.taken = hook == "INPUT" && !h.host.local(h.Dst)
	h.passHook(hook)
}

// martian reports whether the kernel routes no packet from outside with such
// addresses. Whether a destination in 127.0.0.0/8 is among them is up to the
// pod's route_localnet, which others set.
func (h *hop) martian() bool {
	return ThisHost(h.Src) || ThisHost(h.Dst) && (!h.Dst.Is4() || !h.Dst.IsLoopback() || h.host.NoLocalnet)
}

// outcome is where the packet ended, once nothing is left to walk.
func (h *hop) outcome() Outcome {
	switch {
	case h.fate != "":
		return Outcome{h.fate, h.port}
	case h.taken:
		return Outcome{Fate: Local}
	}
	return Outcome{Fate: Direct}
}

// answer is the packet that the other end sends back. The host that a packet
// went to is taken for one that answers from the address that it was sent to.
func (h *hop) answer(sent Packet) Packet {
	back := Packet{
		Direction: In, Family: sent.Family, Protocol: sent.Protocol, Src: sent.Dst, SrcPort: sent.DstPort,
		Dst: sent.Src, DstPort: sent.SrcPort, UID: defaultID, GID: defaultID, ConnMark: h.ConnMark,
		Interface: h.host.Uplink, State: Established,
	}
	if h.State == Untracked {
		back.State, back.ConnMark, back.Midstream = New, 0, true
	}
	if outcome := h.outcome().Fate; sent.Direction == In || h.looped || outcome == Redirected {
		back.Direction, back.Interface = Out, ""
		if outcome == Redirected {
			back.Src, back.SrcPort = h.Dst, h.DstPort // nat has them put back later
		}
	}
	return back
}

// sealed reports whether nothing that follows can change the packet's fate.
func (h *hop) sealed() bool {
	return h.fate == Dropped || h.fate == Rejected || h.fate == Unknown
}

// passHook walks the chains of one hook, in the kernel's order.
func (h *hop) passHook(hook string) {
	h.hook, h.mapped = hook, false
	for i := range h.stack.hooks[hook] {
		b := &h.stack.hooks[hook][i]
		if h.sealed() || b.nat && (h.mapped || h.skipsNAT(hook)) {
			continue
		}
		entering := hook == "PREROUTING" || hook == "OUTPUT"
		h.tracked = h.looped || !entering || b.priority > priorityConntrack
		dst, mark := h.Dst, h.Packet.Mark
		h.pass(b)
		if changed := dst != h.Dst || mark != h.Packet.Mark; changed && hook == "OUTPUT" && b.reroutes && !h.sealed() {
			h.depart()
		}
	}
}

// pass walks one chain, and does as its policy says at its end.
func (h *hop) pass(b *base) {
	if end := h.walk(b, b.chain, 0); end != actionAccept && b.chain.Policy == string(Drop) && !h.sealed() {
		h.step(b, b.chain, 0, Rule{Target: Drop}, true)
		h.seal(Dropped)
	}
}

func (h *hop) skipsNAT(hook string) bool {
	settled := h.looped && (hook == "PREROUTING" || hook == "OUTPUT")
	return !h.first() || settled
}

// first reports whether the packet opens a connection that conntrack tracks.
func (h *hop) first() bool { return h.State == New || h.State == Related }

// seen is what conntrack says of the packet where it is now.
func (h *hop) seen() State {
	if !h.tracked && h.State != Untracked {
		return Invalid
	}
	return h.State
}

func (h *hop) seal(f Fate) { h.fate, h.port = f, 0 }

// walk goes through a chain until a rule ends it.
func (h *hop) walk(b *base, c *Chain, depth int) action {
	for i := range c.Rules {
		r := &c.Rules[i]
		if h.met++; h.met > maxRules {
			h.seal(Unknown)
			return actionStop
		}
		if !h.meets(r) {
			continue
		}
		h.step(b, c, i+1, *r, b.foreign || !ownedChain(c.Name) && !r.Owned())
		end := h.apply(b, r, depth)
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

func (h *hop) apply(b *base, r *Rule, depth int) action {
	if r.passive() {
		return actionContinue
	}
	if h.assumed == nil && r.opaque() {
		h.seal(Unknown)
		return actionStop
	}
	end := r.Target.apply(h)
	if end != actionJump {
		return end
	}
	jump, _ := r.jump()
	next := b.chains[jump.Chain]
	if next == nil || depth == maxDepth {
		h.seal(Unknown)
		return actionStop
	}
	end = h.walk(b, next, depth+1)
	if jump.Goto && end == actionContinue {
		return actionReturn // to where this chain was called from
	}
	return end
}

func (h *hop) meets(r *Rule) bool {
	for _, m := range r.Matches {
		if _, opaque := m.(OpaqueMatch); opaque && !h.assumed.holds(r) || !opaque && !m.matches(h) {
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
