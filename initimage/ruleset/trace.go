package ruleset

import (
	"net/netip"
)

// Step is one rule whose conditions a packet met.
type Step struct {
	Table, Chain string
	Number       int // place in the chain, from 1, as iptables counts; 0 for the chain's policy
	Rule         Rule
	Foreign      bool // it is not Shunt's
}

// Path is a packet's path: the rules that took part, and where it ended.
type Path struct {
	Steps    []Step
	RulesMet int // rules that the packet was compared with, whether or not they took part
	Outcome  Outcome
	// Answer is a packet of the other end, as it comes in or as its process sends
	// it, with the connection mark that this packet has left.
	Answer Packet
	// Untracked means that conntrack does not see the packet, and so nat does not
	// either.
	Untracked bool
	// Zone is the zone of conntrack that the packet's connection is in.
	Zone uint16
	// Hooks are the places that the packet passed, in the kernel's order, with the
	// chains that it went through there, whether or not a rule took part. Only Follow
	// records them.
	Hooks []Hook
	// Undecided is the rule whose matches are not understood, if the outcome is
	// unknown for that.
	Undecided *Rule
}

// maxRules bounds a walk. A rule set that a kernel has accepted stays far below it.
// One that jumps in circles, which no kernel accepts, ends here.
const maxRules = 1 << 16

// maxDepth is the number of jumps that nf_tables allows (NFT_JUMP_STACK_SIZE).
const maxDepth = 16

// Trace walks a packet through the rules of a host and returns its path.
func Trace(rs RuleSet, host Host, p Packet) Path {
	return NewStack(rs.Routing, rs).Trace(host, p, nil)
}

// Trace walks a packet through all rules of the stack and returns its path. If
// something is assumed, a match that is not understood accepts the packet if its
// rule is among those assumed. If nothing is assumed, it makes the packet's fate
// unknown.
//
// A packet of a process passes the OUTPUT hooks and leaves; if it is routed to lo
// it comes in again, and without a route it is dropped. A packet that comes in
// passes the PREROUTING hooks and is delivered or forwarded, if the kernel routes
// packets with its addresses. The nat tables see only the first packet of a
// connection. If that packet comes back over lo they see it only in OUTPUT, which
// has settled its destination.
func (s *Stack) Trace(host Host, p Packet, assumed Assumption) Path {
	return s.trace(&host, p, assumed, true)
}

// trace walks a packet. It records the steps only on request.
func (s *Stack) trace(host *Host, packet Packet, assumed Assumption, steps bool) Path {
	if packet.State == "" {
		packet.State = New
	}
	if packet.Direction == Out && !packet.Src.IsValid() {
		packet.Src = sourceFor(host, packet)
		if s.survey != nil {
			s.survey.choseSource(packet, host)
		}
	}
	if s.survey != nil {
		s.survey.opened(packet)
	}
	walk := &s.current
	*walk = traversal{stack: s, host: host, survey: s.survey, assumed: assumed, recording: steps, Packet: packet, opens: packet.opens()}
	if packet.Direction == Out {
		walk.bound = packet.Interface
		walk.output()
	} else {
		walk.in = packet.Interface
		walk.input()
	}
	return Path{
		Steps: walk.steps, RulesMet: walk.rulesMet, Outcome: walk.outcome(), Answer: walk.answer(packet),
		Untracked: walk.State == Untracked, Zone: walk.zone, Hooks: walk.hooks, Undecided: walk.undecided,
	}
}

// opens reports whether the packet is the first of a connection.
func (p Packet) opens() bool { return (p.State == New || p.State == Related) && !p.Midstream }

// Assumption holds the rules whose matches are assumed to accept a packet where
// they are not understood; nil assumes nothing about any.
type Assumption map[*Rule]bool

// NoRule and EveryRule assume it of none and of all of them.
var (
	NoRule    = Assumption{}
	EveryRule = Assumption{nil: true}
)

func (a Assumption) holds(r *Rule) bool { return a == nil || a[nil] || a[r] }

// sourceFor returns the address that the kernel gives a socket without one: the
// destination itself if that is the host's own.
func sourceFor(host *Host, p Packet) netip.Addr {
	if host.local(p.Dst) {
		return p.Dst
	}
	return host.address(p.Family)
}

// traversal is a packet on its path, changed by the rules as it goes.
type traversal struct {
	Packet
	stack      *Stack
	survey     *Survey // is told what is compared, if there is one
	host       *Host
	assumed    Assumption
	hook       string
	in, out    string // interfaces
	bound      string // interface that the sending socket is bound to
	opens      bool   // it is the first packet of its connection
	looped     bool   // it comes in again over lo: conntrack knows it, and nat has settled its destination
	taken      bool   // by a socket of this host, though its destination is no address of this host
	tracked    bool   // conntrack has seen it
	zone       uint16 // of conntrack
	translated bool   // nat has given it an address at this hook
	fate       Fate   // set once a rule has decided
	port       uint16 // of that fate
	steps      []Step
	rulesMet   int

	recording bool // the steps are wanted
	hooks     []Hook
	undecided *Rule
}

// addStep records a rule that takes part.
func (h *traversal) addStep(b *base, c *Chain, number int, r Rule, foreign bool, depth int) {
	if h.recording {
		step := Step{b.table, c.Name, number, r, foreign}
		h.steps = append(h.steps, step)
		h.meet(step, depth, len(c.Rules))
	}
}

// loopbackName is the name of the loopback interface in every namespace.
const loopbackName = "lo"

// route returns the interface that the packet leaves by; "" if there is none. The
// table of local addresses comes before every rule (ip-rule(8), priority 0).
func (h *traversal) route() string {
	switch {
	case h.localTable() || h.decidingRule() != nil:
		return loopbackName
	case h.boundTo(loopbackName):
		return ""
	}
	return h.host.Uplink
}

// localTable reports whether the table of local addresses routes the packet. For
// IPv6 it holds each address with its interface, and a socket that is bound to lo
// does not find those of other interfaces.
func (h *traversal) localTable() bool {
	found := h.Family == IPv4 || !h.boundTo(loopbackName) || h.destinationLoopback()
	return found && h.destinationLocal()
}

// chooseInterface sets the interface that the packet leaves by, and drops the
// packet if there is none.
func (h *traversal) chooseInterface() {
	h.out = h.route()
	h.routed(h.out)
	if h.out == "" {
		h.seal(Dropped)
	}
}

// output walks the packet from its process to where it leaves, and back in if that
// is lo.
func (h *traversal) output() {
	h.chooseInterface()
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
func (h *traversal) cutOff(out string) bool {
	if h.stack.routing.Unreachable && out != loopbackName {
		h.seal(Dropped)
	}
	return h.sealed()
}

// input walks the packet from its interface to a local socket, or to where it is
// forwarded.
func (h *traversal) input() {
	if h.Direction == In && h.cutOff(h.in) {
		return // it may come in, but its answer cannot leave
	}
	fromOutside := !h.cameBy(loopbackName)
	if fromOutside && h.Family == IPv6 && (h.sourceIn(loopback6) || h.destinationIn(loopback6)) {
		h.seal(Dropped) // before netfilter sees it
		return
	}
	h.passHook("PREROUTING")
	if fromOutside && !h.sealed() && h.martian() {
		h.seal(Dropped)
		return
	}
	hook := "INPUT"
	if h.fate != TProxied && !h.looped { // what comes back over lo keeps the route that brought it there
		way := h.route()
		if h.routed(way); way != loopbackName {
			hook = "FORWARD"
		}
	}
	h.taken = hook == "INPUT" && !h.destinationLocal()
	h.passHook(hook)
}

// martian reports whether the kernel drops packets from outside with such
// addresses. For a destination in 127.0.0.0/8 that depends on the pod's
// route_localnet, which others set.
func (h *traversal) martian() bool {
	return h.sourceThisHost() || h.destinationThisHost() &&
		(h.Family == IPv6 || h.host.NoLocalnet || !h.destinationLoopback())
}

// outcome returns where the packet ended.
func (h *traversal) outcome() Outcome {
	switch {
	case h.fate != "":
		return Outcome{h.fate, h.port}
	case h.taken:
		return Outcome{Fate: Local}
	}
	return Outcome{Fate: Direct}
}

// answer returns the packet that the other end sends back. It assumes that a host
// answers from the address that it was called by.
func (h *traversal) answer(sent Packet) Packet {
	back := Packet{
		Direction: In, Family: sent.Family, Protocol: sent.Protocol, Src: sent.Dst, SrcPort: sent.DstPort,
		Dst: sent.Src, DstPort: sent.SrcPort, UID: defaultID, GID: defaultID, ConnMark: h.ConnMark,
		Interface: h.host.Uplink, State: Established,
	}
	if h.hasState(Untracked) {
		back.State, back.ConnMark, back.Midstream = New, 0, true
	}
	if outcome := h.outcome().Fate; sent.Direction == In || h.looped || outcome == Redirected {
		back.Direction, back.Interface = Out, ""
		if outcome == Redirected {
			back.Src, back.SrcPort = h.Dst, h.DstPort // nat restores them later
		}
	}
	return back
}

// sealed reports whether nothing that follows can change the packet's fate.
func (h *traversal) sealed() bool {
	return h.fate == Dropped || h.fate == Rejected || h.fate == Unknown
}

// passHook walks the chains of one hook, in the kernel's order. A packet of this
// host that is routed again may leave by another interface, but until the end of
// the hook its chains see the first one.
func (h *traversal) passHook(hook string) {
	h.hook, h.translated = hook, false
	if !h.sealed() {
		h.enter(hook)
	}
	seen, leaves := h.out, h.out
	for i := range h.stack.hooks[hook] {
		b := &h.stack.hooks[hook][i]
		if h.sealed() {
			break
		}
		if b.nat && (h.translated || h.skipsNAT(hook)) {
			h.begin(b, h.whyNotNAT())
			continue
		}
		h.begin(b, "")
		entering := hook == "PREROUTING" || hook == "OUTPUT"
		h.tracked = h.looped || !entering || b.priority > priorityConntrack
		before := h.Packet
		if h.survey != nil {
			h.survey.remember()
		}
		h.pass(b)
		h.end(&before)
		if hook == "OUTPUT" && b.reroutes && !h.sealed() && h.changedSince(&before) {
			h.chooseInterface()
			leaves, h.out = h.out, seen
		}
	}
	h.out = leaves
}

// pass walks one chain, and applies its policy at its end.
func (h *traversal) pass(b *base) {
	if end := h.walk(b, b.chain, 0); end != actionAccept && b.chain.Policy == string(Drop) && !h.sealed() {
		h.addStep(b, b.chain, 0, Rule{Target: Drop}, true, 0)
		h.seal(Dropped)
	}
}

func (h *traversal) skipsNAT(hook string) bool {
	settled := h.looped && (hook == "PREROUTING" || hook == "OUTPUT")
	return !h.opensTracked() || settled
}

// opensTracked reports whether the packet opens a connection that conntrack tracks.
func (h *traversal) opensTracked() bool { return h.hasState(New, Related) }

func (h *traversal) seal(f Fate) { h.fate, h.port = f, 0 }

// walk goes through a chain until a rule ends it.
func (h *traversal) walk(b *base, chain *Chain, depth int) action {
	for i := range chain.Rules {
		rule := &chain.Rules[i]
		if h.rulesMet++; h.rulesMet > maxRules {
			h.seal(Unknown)
			return actionStop
		}
		if !h.meets(rule) {
			continue
		}
		h.addStep(b, chain, i+1, *rule, b.foreign || !ownedChain(chain.Name) && !rule.Owned(), depth)
		end := h.apply(b, rule, depth)
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
	h.leave(b, chain, depth)
	return actionContinue
}

func (h *traversal) apply(b *base, rule *Rule, depth int) action {
	if rule.passive() {
		return actionContinue
	}
	if h.assumed == nil && rule.opaque() && !h.stack.decided[rule] {
		h.undecided = rule
		h.seal(Unknown)
		return actionStop
	}
	end := rule.Target.apply(h)
	if end != actionJump {
		return end
	}
	jump, _ := rule.jump()
	next := b.chains[jump.Chain]
	if next == nil || depth == maxDepth {
		h.seal(Unknown)
		return actionStop
	}
	end = h.walk(b, next, depth+1)
	if jump.Goto && end == actionContinue {
		return actionReturn // to the caller of this chain
	}
	return end
}

func (h *traversal) meets(r *Rule) bool {
	for _, m := range r.Matches {
		if _, opaque := m.(OpaqueMatch); opaque && !h.accepts(r) || !opaque && !m.matches(h) {
			return false
		}
	}
	return true
}
