package ruleset

import (
	"net/netip"
	"slices"
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
// connection. If that packet comes back over lo they see it only in OUTPUT and
// POSTROUTING, which have settled its addresses.
func (s *Stack) Trace(host Host, p Packet, assumed Assumption) Path {
	return s.trace(&host, p, assumed, true)
}

// trace walks a packet. It records the steps only on request.
func (s *Stack) trace(host *Host, packet Packet, assumed Assumption, steps bool) Path {
	if packet.State == "" {
		packet.State = New
	}
	if s.survey != nil {
		s.survey.opened(packet)
	}
	walk := &s.current
	*walk = traversal{stack: s, host: host, survey: s.survey, assumed: assumed, recording: steps, Packet: packet, opens: packet.opens()}
	if packet.Direction == Out {
		walk.bound = packet.Interface
		if !packet.Src.IsValid() {
			walk.chooseSource()
			if packet.Src = walk.Src; s.survey != nil {
				s.survey.source = s.survey.from.src
			}
		}
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

// chooseSource gives the packet the address that the kernel gives a socket without
// one: the destination itself if that is routed to this host, but 127.0.0.1 for all
// of 127.0.0.0/8.
func (h *traversal) chooseSource() {
	from := fixed
	switch {
	case h.Family == IPv4 && h.destinationLoopback():
		h.Src = h.Family.loopback()
	case h.destinationLocal(), h.Family == IPv4 && h.decidingRule() != nil:
		h.Src = h.Dst
		if h.survey != nil {
			from = h.survey.from.dst
		}
	default:
		h.Src = h.host.address(h.Family)
	}
	if h.survey != nil {
		h.survey.from.src = from
	}
}

// traversal is a packet on its path, changed by the rules as it goes.
type traversal struct {
	Packet
	stack      *Stack
	survey     *Survey // is told what is compared, if there is one
	host       *Host
	assumed    Assumption
	hook       string
	native     bool   // it is in a table of others that has nf_tables' own rules
	compiled   bool   // it is in such a table that Shunt's rules were compiled to
	ownRule    bool   // it is at a rule of Shunt
	in, out    string // interfaces
	bound      string // interface that the sending socket is bound to
	opens      bool   // it is the first packet of its connection
	looped     bool   // it comes in again over lo: conntrack knows it, and nat has settled its destination
	taken      bool   // by a socket of this host, though its destination is no address of this host
	broadcast  bool   // the kernel takes it for one
	templated  bool   // a rule has told conntrack what to do with it
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
	case !h.boundTo(loopbackName):
		return h.host.Uplink
	case h.Family == IPv4: // which takes every destination of such a socket to be on its link
		return loopbackName
	}
	return ""
}

// localTable reports whether the table of local addresses routes the packet. For
// IPv6 it holds each address with its interface, and a socket that is bound to lo
// does not find those of other interfaces.
func (h *traversal) localTable() bool {
	found := h.Family == IPv4 || !h.boundTo(loopbackName) || h.destinationLoopback() ||
		slices.ContainsFunc(h.stack.routing.Addresses, h.destinationIn)
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
		h.in, h.out, h.looped, h.templated = loopbackName, "", true, false
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
	if fromOutside && !h.sealed() {
		h.dropMartian()
	}
	if h.sealed() {
		return
	}
	if h.looped { // OUTPUT has routed it, for both ways
		h.routed(loopbackName)
		h.arrive()
		return
	}
	way := h.route()
	h.routed(way)
	switch {
	case way == loopbackName, h.broadcast:
		h.arrive()
	case h.fate == TProxied, h.Family == IPv6 && h.sourceIn(unspecified6) && !h.cameBy(way):
		h.seal(Dropped) // the kernel forwards neither what has a socket, nor what has no source
	default:
		h.out = way
		h.passHook("FORWARD")
		h.passHook("POSTROUTING")
	}
}

// arrive walks the packet to a socket of this host.
func (h *traversal) arrive() {
	h.taken = !h.destinationLocal()
	if h.fate == Rewritten { // but it comes to this host all the same
		h.fate = Redirected
	}
	h.passHook("INPUT")
	if h.sealed() {
		return
	}
	// tcp answers no broadcast, nor a client that a dual-stack socket would take for an IPv4 address.
	if (h.broadcast || h.Family == IPv6 && h.sourceIn(mapped)) && h.isProtocol(tcp) {
		h.seal(Dropped)
	}
}

// Addresses of which the kernel has an opinion.
var (
	loopback4    = netip.MustParsePrefix("127.0.0.0/8")
	unspecified4 = hostPrefix(netip.IPv4Unspecified())
	unspecified6 = hostPrefix(netip.IPv6Unspecified())
	mapped       = netip.MustParsePrefix("::ffff:0:0/96")
	// compatible stood for IPv4 addresses once, and has a scope of its own.
	compatible = netip.MustParsePrefix("::/96")
)

// dropMartian drops a packet from outside with addresses that the kernel accepts
// from nobody else. It looks at them after PREROUTING.
//
//	IPv4, both         | 0.0.0.0: a broadcast
//	IPv4, source       | the pod's own, 127.0.0.1, 0.0.0.0: dropped
//	                   | else 127.0.0.0/8: dropped, unless route_localnet is set and
//	                   | the namespace has never had an ip rule of its own
//	IPv4, destination  | 0.0.0.0: dropped; 127.0.0.0/8: unless route_localnet is set
//	IPv6, destination  | unspecified: dropped; ::ffff:0:0/96: a pod has no route for it
func (h *traversal) dropMartian() {
	if h.Family == IPv6 {
		if h.destinationIn(unspecified6) || h.destinationIn(mapped) {
			h.seal(Dropped)
		}
		return
	}
	nobody := h.sourceIn(unspecified4)
	switch toNobody := h.destinationIn(unspecified4); {
	case nobody && toNobody:
		h.broadcast = true
		return
	case nobody, toNobody, h.sourceIn(hostPrefix(h.Family.loopback())), h.host.NoLocalnet && h.destinationLoopback():
		h.seal(Dropped)
		return
	}
	switch posing := h.sourceIn(loopback4); {
	case !posing && h.sourceLocal(), posing && (h.host.NoLocalnet || len(h.stack.routing.Rules) > 0):
		h.seal(Dropped)
	case posing:
		h.seal(Unknown)
	}
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

// inherited reports whether the packet opens a connection whose socket at this host
// has its mark.
func (h *traversal) inherited() bool {
	return slices.Contains(h.stack.routing.Settings, acceptMarks) && h.opens && h.isProtocol(tcp)
}

// answer returns the packet that the other end sends back. It assumes that a host
// answers from the address that it was called by.
func (h *traversal) answer(sent Packet) Packet {
	back := Packet{
		Direction: In, Family: sent.Family, Protocol: sent.Protocol, Src: sent.Dst, SrcPort: sent.DstPort,
		Dst: sent.Src, DstPort: sent.SrcPort, UID: defaultID, GID: defaultID, ConnMark: h.ConnMark,
		Interface: h.host.Uplink, State: Established,
	}
	if sent.Direction == Out {
		back.Answer, back.SocketMark = true, sent.Mark
	}
	if h.hasState(Untracked) {
		back.State, back.ConnMark, back.Midstream = New, 0, true
	}
	if outcome := h.outcome().Fate; sent.Direction == In || h.looped || outcome == Redirected {
		back.Direction, back.Interface = Out, ""
		if h.inherited() {
			back.Mark = h.Mark
		}
		if outcome == Redirected {
			back.Src, back.SrcPort = h.Dst, h.DstPort // nat restores them later
		}
	}
	return back
}
