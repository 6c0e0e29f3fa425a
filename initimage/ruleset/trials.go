package ruleset

import (
	"hash/maphash"
	"iter"
	"net/netip"
	"slices"
	"strings"
)

// Trial is a packet to be walked, and in what circumstances.
type Trial struct {
	Packet  Packet
	Uplink  string // the interface by which it leaves, if it leaves the host
	Assumed Assumption
	host    *Host     // behind that interface
	proxy   [2]uint32 // uid and gid of the proxy
}

// Walk takes the trial's packet through a stack, and does not note its steps.
func (t Trial) Walk(s *Stack) Path { return s.trace(t.host, t.Packet, t.Assumed, false) }

// Explain takes it through the stack and notes its steps.
func (t Trial) Explain(s *Stack) Path { return s.trace(t.host, t.Packet, t.Assumed, true) }

// Unsent reports whether nobody sends such a packet, by the way that it should
// go and that its answer should: one that opens a connection has no mark that
// our rules route it by, and comes from another host's address only where the
// answers to that come back to the proxy.
func (t Trial) Unsent(wanted, answer Path) bool {
	p := t.Packet
	transparent := p.Direction == Out && p.Src.IsValid() && !t.host.local(p.Src)
	return p.opens() && (wanted.Outcome.Fate == Local || transparent && answer.Outcome.Fate != Local)
}

// Hop reports whether the packet is one that the proxy sends on to the app: to
// an address of the host, from one that no other process sends from.
func (t Trial) Hop() bool {
	p, host := t.Packet, t.host
	return p.Direction == Out && p.State == New && host.local(p.Dst) && p.Src.IsValid() &&
		(!host.local(p.Src) || p.Family.passthroughSource().Contains(p.Src))
}

// Answer is the trial of the packet that answers this one's, which has gone some
// way. What got to the proxy, the proxy answers.
func (t Trial) Answer(way Path) Trial {
	t.Packet = way.Answer
	if fate := way.Outcome.Fate; t.Packet.Direction == Out && (fate == Redirected || fate == TProxied) {
		t.Packet.UID, t.Packet.GID = t.proxy[0], t.proxy[1]
	}
	return t
}

// Trials returns packets that show what rules of others do to the ways that
// the wanted rules give.
//
// First come packets of our own, one for each way through the wanted rules, and
// their answers. Then, for each rule of others that can change where a packet
// goes, these packets with their fields set so that they meet it: by an
// interface that it names, from and to addresses and ports at the edges of its
// ranges, with its owner and state. A rule in a chain that others lead to has
// the conditions on the way there, too; and one behind rules that end their
// chain for some packets has the opposite of those. So the number of trials
// grows with the number of rules, and not with the product of what they name.
//
// Marks are not set, but for those of our proxy: no process of a pod can set
// one that could not take the rules away. A rule that looks for a mark is tried
// together with those that set it.
func Trials(want RuleSet, others []RuleSet, host Host) iter.Seq[Trial] {
	return func(yield func(Trial) bool) {
		g := &trialMaker{
			host: &host, hosts: map[string]*Host{}, family: want.Family, wanted: NewStack(want.Routing, want),
			proxy: want.ProxyPorts(), seed: maphash.MakeSeed(), seen: map[uint64]bool{}, yield: yield,
			proxyID: [2]uint32{defaultID, defaultID},
		}
		ours := waysOf(want, true)
		var theirs []way
		for _, rs := range others {
			theirs = append(theirs, waysOf(rs, false)...)
		}
		theirs = pairMarks(theirs)
		g.learn(slices.Concat(ours, theirs), len(ours))
		bases := g.bases(want, ours)
		for _, b := range bases {
			if !g.add(b) {
				return
			}
		}
		for i := range theirs {
			for _, b := range bases {
				for _, t := range g.meet(b, &theirs[i], false) {
					if !g.add(t) {
						return
					}
				}
			}
		}
	}
}

// trialMaker makes trials for one family of a host.
type trialMaker struct {
	host     *Host
	family   Family
	wanted   *Stack
	proxy    map[uint16]bool // ports that the proxy listens on
	owners   []Owner         // that the wanted rules look for
	proxyID  [2]uint32
	ownPorts []uint16 // that the wanted rules name
	port     uint16   // that no rule names
	outside  []netip.Addr
	edges    []netip.Addr     // just outside of the ranges that the wanted rules name
	hosts    map[string]*Host // the host behind each of its interfaces
	seed     maphash.Seed
	seen     map[uint64]bool // hashes of the trials so far
	yield    func(Trial) bool

	// Room for trials on their way: most of those that are made are not kept,
	// and shunt-init runs without a garbage collector.
	met, next, room []Trial
	hop             hop
}

type trialKey struct {
	packet  Packet
	uplink  string
	assumed *Rule
}

// by has the packet leave by an interface.
func (g *trialMaker) by(uplink string, t Trial) Trial {
	if g.hosts[uplink] == nil {
		host := g.host.behind(uplink)
		g.hosts[uplink] = &host
	}
	t.Uplink, t.host, t.proxy = uplink, g.hosts[uplink], g.proxyID
	return t
}

// stray reports whether a packet is neither from nor to the host.
func (g *trialMaker) stray(p Packet) bool {
	from := p.Direction == Out && !p.Src.IsValid() || g.host.local(p.Src)
	return !from && !g.host.local(p.Dst) && !ThisHost(p.Dst)
}

// add hands a trial out, unless it was handed out before; it returns false when
// no more are wanted.
func (g *trialMaker) add(t Trial) bool {
	if g.stray(t.Packet) {
		return true
	}
	key := trialKey{packet: t.Packet, uplink: t.Uplink}
	for r := range t.Assumed {
		key.assumed = r // a rule's own conditions tell the trials of its way apart
	}
	hash := maphash.Comparable(g.seed, key)
	if g.seen[hash] {
		return true
	}
	g.seen[hash] = true
	return g.yield(t)
}

// maxOwnPorts bounds the ports of ours that a range of others is tried with.
const maxOwnPorts = 64

// learn takes in what the rules name; the first of them are ours.
func (g *trialMaker) learn(ways []way, ours int) {
	named := func(port uint16) bool {
		return slices.ContainsFunc(ways, func(w way) bool { return w.namesPort(port) })
	}
	for g.port = unnamedPort; named(g.port) && g.port < unnamedPort+1000; {
		g.port++
	}
	for _, candidate := range outsideOf(g.family) {
		if !slices.ContainsFunc(ways, func(w way) bool { return w.names(candidate) }) {
			g.outside = append(g.outside, candidate)
		}
	}
	if g.outside == nil {
		g.outside = outsideOf(g.family)
	}
	for _, w := range ways[:ours] {
		for _, m := range w.matches {
			g.learnOwn(m)
		}
	}
}

// learnOwn takes in what a rule of ours names.
func (g *trialMaker) learnOwn(m Match) {
	switch m := m.(type) {
	case Owner:
		g.owners = union(g.owners, m)
		if m.Group {
			g.proxyID[1] = m.First
		} else {
			g.proxyID[0] = m.First
		}
	case Ports:
		for _, r := range m.Ranges {
			if len(g.ownPorts) < maxOwnPorts {
				g.ownPorts = union(g.ownPorts, r.First)
			}
		}
	case Destination:
		if next := lastOf(m.Prefix).Next(); next.IsValid() && len(g.edges) < maxOwnPorts {
			g.edges = append(g.edges, next)
		}
	}
}

// unnamedPort is where the search for a port begins that no rule names.
const unnamedPort = 8079

// outsideOf are addresses of others: those kept for documentation, and others
// that a rule about those leaves alone.
func outsideOf(f Family) []netip.Addr {
	if f == IPv6 {
		return []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2a00::1")}
	}
	return []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("8.0.0.1")}
}

// bases returns a packet for each way through the wanted rules, and the answer
// to each.
func (g *trialMaker) bases(want RuleSet, ours []way) []Trial {
	var bases []Trial
	known := map[string]bool{}
	keep := func(t Trial) Path {
		path := t.Explain(g.wanted)
		if g.stray(t.Packet) || t.Unsent(path, t.Answer(path).Walk(g.wanted)) {
			return path
		}
		if kind := g.kindOf(t.Packet, path); !known[kind] {
			known[kind] = true
			bases = append(bases, t)
		}
		return path
	}
	try := func(t Trial) { keep(t.Answer(keep(t))) }
	seeds := g.seeds(want)
	for _, seed := range seeds {
		try(seed)
	}
	for i := range ours {
		for _, seed := range seeds {
			for _, t := range g.meet(seed, &ours[i], true) {
				try(t)
			}
		}
	}
	return bases
}

// kindOf tells packets apart by whose they are, what they are for and which
// rules of ours they meet.
func (g *trialMaker) kindOf(p Packet, path Path) string {
	words := []string{string(p.Direction), p.Protocol, string(p.State), p.Interface, path.Outcome.String()}
	for _, addr := range []netip.Addr{p.Src, p.Dst} {
		kind := "outside"
		switch {
		case ThisHost(addr):
			kind = addr.String()
		case !addr.IsValid() || g.host.local(addr):
			kind = "own"
		}
		words = append(words, kind)
	}
	for _, s := range path.Steps {
		words = append(words, s.Table, s.Chain, s.Rule.Comment)
	}
	return strings.Join(words, "|")
}

// seeds are the packets that a pod has to do with: from outside, to outside, to
// itself, and with addresses that no packet from outside may have.
func (g *trialMaker) seeds(want RuleSet) []Trial {
	var seeds []Trial
	own := g.host.address(g.family)
	add := func(p Packet) {
		p.Family, p.State, p.UID, p.GID = g.family, New, defaultID, defaultID
		if p.DstPort == 0 {
			p.DstPort = g.port
		}
		seeds = append(seeds, g.by(g.host.Uplink, Trial{Packet: p, Assumed: NoRule}))
	}
	for _, protocol := range []string{"tcp", "udp"} {
		for _, dst := range append([]netip.Addr{own}, g.family.thisHost()...) {
			add(Packet{Direction: In, Protocol: protocol, Src: g.outside[0], Dst: dst, Interface: g.host.Uplink})
		}
		for _, dst := range []netip.Addr{g.outside[0], own, g.family.loopback()} {
			add(Packet{Direction: Out, Protocol: protocol, Dst: dst})
		}
		add(Packet{Direction: Out, Protocol: protocol, Src: g.outside[0], Dst: own}) // of a transparent proxy
	}
	for _, r := range want.Routing.Rules {
		if r.OutInterface == loopbackName {
			add(Packet{Direction: Out, Protocol: "tcp", Src: r.Source.Addr(), Dst: own, Mark: r.Mark, Interface: loopbackName})
		}
	}
	return seeds
}

// Bounds of the packets that one rule gets out of one other packet.
const (
	maxValues = 5  // of one field
	maxMet    = 40 // in all
)

// meet returns variants of a packet that meet what a rule asks for, so far as a
// packet can have it; free says that it may have any mark and any source. They
// are good until the next call.
func (g *trialMaker) meet(base Trial, w *way, free bool) []Trial {
	out := base.Packet.Direction == Out
	switch w.hook {
	case "OUTPUT", "POSTROUTING":
		if !out {
			return nil
		}
	case "FORWARD":
		if out {
			return nil
		}
	}
	if len(w.opaque) > 0 {
		base.Assumed = Assumption{}
		for _, r := range w.opaque {
			base.Assumed[r] = true
		}
	}
	g.met = append(g.met[:0], base)
	met, next := g.met, g.next[:0]
	for i := range fields {
		asked := w.asked(i)
		if len(asked) == 0 {
			continue
		}
		next = next[:0]
		for _, t := range met {
			n := 0
			for _, variant := range fields[i].variants(g, t, asked, w.hook, free) {
				if n < maxValues && len(next) < maxMet {
					next = append(next, variant)
					n++
				}
			}
		}
		met, next = next, met
	}
	g.met, g.next = met, next
	return met
}
