package ruleset

import (
	"hash/maphash"
	"iter"
	"net/netip"
	"slices"
	"strings"
)

// Trial is a packet to walk, and its circumstances.
type Trial struct {
	Packet  Packet
	Uplink  string // the interface by which it leaves, if it leaves the host
	Assumed Assumption
	host    *Host     // as seen from that interface
	proxy   [2]uint32 // uid and gid of the proxy
}

// Walk walks the trial's packet through a stack, and does not record its steps.
func (t Trial) Walk(s *Stack) Path { return s.trace(t.host, t.Packet, t.Assumed, false) }

// Explain walks the packet through a stack and records its steps.
func (t Trial) Explain(s *Stack) Path { return s.trace(t.host, t.Packet, t.Assumed, true) }

// Unsent reports whether nobody sends such a packet, judged by its wanted path and
// that of its answer. A packet that opens a connection has no mark that our rules
// route by. It comes from another host's address only if answers to that address
// come back to the proxy.
func (t Trial) Unsent(wanted, answer Path) bool {
	p := t.Packet
	transparent := p.Direction == Out && p.Src.IsValid() && !t.host.local(p.Src)
	return p.opens() && (wanted.Outcome.Fate == Local || transparent && answer.Outcome.Fate != Local)
}

// Hop reports whether the proxy sends the packet to the app: to an address of the
// host, from an address that no other process uses.
func (t Trial) Hop() bool {
	p, host := t.Packet, t.host
	return p.Direction == Out && p.State == New && host.local(p.Dst) && p.Src.IsValid() &&
		(!host.local(p.Src) || p.Family.passthroughSource().Contains(p.Src))
}

// Answer returns the trial of the packet that answers this one. If this one reached
// the proxy, the proxy answers.
func (t Trial) Answer(gone Path) Trial {
	t.Packet = gone.Answer
	if fate := gone.Outcome.Fate; t.Packet.Direction == Out && (fate == Redirected || fate == TProxied) {
		t.Packet.UID, t.Packet.GID = t.proxy[0], t.proxy[1]
	}
	return t
}

// Trials yields packets that show how rules of others change the paths that the
// wanted rules give.
//
// First come packets of our own, one for each path through the wanted rules, and
// their answers. Then, for each rule of others that can change where a packet goes,
// come these packets with their fields set so that they meet the rule: by an
// interface that it names, with addresses and ports at the edges of its ranges,
// with its owner and state. A rule in a chain of others also has the conditions of
// the jumps to that chain. A rule behind others that end their chain for some
// packets has the opposite of their conditions. So the number of trials grows with
// the number of rules, and not with the product of what they name.
//
// Only the marks of our proxy are set: a process of the pod that can set a mark
// could also delete the rules. A rule that matches a mark is tried together with
// the rules that set it.
func Trials(want RuleSet, others []RuleSet, host Host) iter.Seq[Trial] {
	return func(yield func(Trial) bool) {
		maker := &trialMaker{
			host: &host, hosts: map[string]*Host{}, family: want.Family, wanted: NewStack(want.Routing, want),
			proxy: want.ProxyPorts(), seed: maphash.MakeSeed(), seen: map[uint64]bool{}, yield: yield,
			proxyID: [2]uint32{defaultID, defaultID},
		}
		ours := rulePathsOf(want, true)
		var theirs []rulePath
		for _, rs := range others {
			theirs = append(theirs, rulePathsOf(rs, false)...)
		}
		theirs = pairMarks(theirs)
		maker.collectNames(slices.Concat(ours, theirs), len(ours))
		bases := maker.bases(want, ours)
		for _, b := range bases {
			if !maker.add(b) {
				return
			}
		}
		for i := range theirs {
			for _, b := range bases {
				for _, t := range maker.variantsMeeting(b, &theirs[i], false) {
					if !maker.add(t) {
						return
					}
				}
			}
		}
	}
}

// trialMaker makes the trials of one family of a host.
type trialMaker struct {
	host     *Host
	family   Family
	wanted   *Stack
	proxy    map[uint16]bool // ports that the proxy listens on
	owners   []Owner         // that the wanted rules look for
	proxyID  [2]uint32
	ownPorts []uint16 // that the wanted rules name
	port     uint16   // a port that no rule names
	outside  []netip.Addr
	edges    []netip.Addr     // just outside the prefixes that the wanted rules name
	hosts    map[string]*Host // the host as seen from each of its interfaces
	seed     maphash.Seed
	seen     map[uint64]bool // hashes of the trials so far
	yield    func(Trial) bool

	// Reused slices: most variants are not kept, and shunt-init runs without a
	// garbage collector.
	variants, next, room []Trial
	scratch              traversal
}

type trialKey struct {
	packet  Packet
	uplink  string
	assumed *Rule
}

// leavingBy returns the trial with the packet leaving by an interface.
func (g *trialMaker) leavingBy(uplink string, t Trial) Trial {
	if g.hosts[uplink] == nil {
		host := g.host.Behind(uplink)
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

// add yields a trial, unless it was yielded before. It returns false when no more
// are wanted.
func (g *trialMaker) add(t Trial) bool {
	if g.stray(t.Packet) {
		return true
	}
	key := trialKey{packet: t.Packet, uplink: t.Uplink}
	for r := range t.Assumed {
		key.assumed = r // the conditions of one rule tell the trials of its path apart
	}
	hash := maphash.Comparable(g.seed, key)
	if g.seen[hash] {
		return true
	}
	g.seen[hash] = true
	return g.yield(t)
}

// maxOwnPorts bounds how many of our ports a range of others is tried with.
const maxOwnPorts = 64

// collectNames collects what the rules name. The first of the paths are ours.
func (g *trialMaker) collectNames(ways []rulePath, ours int) {
	named := func(port uint16) bool {
		return slices.ContainsFunc(ways, func(w rulePath) bool { return w.namesPort(port) })
	}
	for g.port = unnamedPort; named(g.port) && g.port < unnamedPort+1000; {
		g.port++
	}
	for _, candidate := range outsideOf(g.family) {
		if !slices.ContainsFunc(ways, func(w rulePath) bool { return w.namesAddress(candidate) }) {
			g.outside = append(g.outside, candidate)
		}
	}
	if g.outside == nil {
		g.outside = outsideOf(g.family)
	}
	for _, w := range ways[:ours] {
		for _, m := range w.matches {
			g.collectOwnNames(m)
		}
	}
}

// collectOwnNames collects what a rule of ours names.
func (g *trialMaker) collectOwnNames(m Match) {
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

// unnamedPort is where the search for a port that no rule names begins.
const unnamedPort = 8079

// outsideOf returns addresses of other hosts: one kept for documentation, and one
// for the case that a rule excludes those.
func outsideOf(f Family) []netip.Addr {
	if f == IPv6 {
		return []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2a00::1")}
	}
	return []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("8.0.0.1")}
}

// bases returns a packet for each path through the wanted rules, and the answer to
// each.
func (g *trialMaker) bases(want RuleSet, ours []rulePath) []Trial {
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
			for _, t := range g.variantsMeeting(seed, &ours[i], true) {
				try(t)
			}
		}
	}
	return bases
}

// kindOf describes a packet by whose it is, what it is for, and which rules of ours
// it meets.
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

// seeds returns the packets that every pod meets: from outside, to outside, to
// itself, and with addresses that no packet from outside may have.
func (g *trialMaker) seeds(want RuleSet) []Trial {
	var seeds []Trial
	own := g.host.address(g.family)
	add := func(p Packet) {
		p.Family, p.State, p.UID, p.GID = g.family, New, defaultID, defaultID
		if p.DstPort == 0 {
			p.DstPort = g.port
		}
		seeds = append(seeds, g.leavingBy(g.host.Uplink, Trial{Packet: p, Assumed: NoRule}))
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

// Bounds of the variants that one rule makes of one packet.
const (
	maxValues = 5  // of one field
	maxMet    = 40 // in all
)

// variantsMeeting returns variants of a packet that meet what a rule asks for, as
// far as a packet can. free allows any mark and any source. The result is valid
// until the next call.
func (g *trialMaker) variantsMeeting(base Trial, path *rulePath, free bool) []Trial {
	out := base.Packet.Direction == Out
	switch path.hook {
	case "OUTPUT", "POSTROUTING":
		if !out {
			return nil
		}
	case "FORWARD":
		if out {
			return nil
		}
	}
	if len(path.opaque) > 0 {
		base.Assumed = Assumption{}
		for _, r := range path.opaque {
			base.Assumed[r] = true
		}
	}
	g.variants = append(g.variants[:0], base)
	variants, next := g.variants, g.next[:0]
	for i := range fields {
		asked := path.asked(i)
		if len(asked) == 0 {
			continue
		}
		next = next[:0]
		for _, t := range variants {
			kept := 0
			for _, variant := range fields[i].variants(g, t, asked, path.hook, free) {
				if kept < maxValues && len(next) < maxMet {
					next = append(next, variant)
					kept++
				}
			}
		}
		variants, next = next, variants
	}
	g.variants, g.next = variants, next
	return variants
}
