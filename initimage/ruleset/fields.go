package ruleset

import (
	"net/netip"
	"slices"
	"strings"
)

// field is a property of packets that rules match: which matches ask for it, and
// the variants of a packet that have what they ask for.
type field struct {
	asksFor  func(m Match) bool
	variants func(g *trialMaker, t Trial, asked []Match, hook string, free bool) []Trial
}

// fields are in the order in which they are set: the interface decides which
// addresses a packet can have, and the protocol which ports.
var fields = []field{
	{asksFor: isA[InInterface], variants: byInInterface},
	{asksFor: isA[OutInterface], variants: byOutInterface},
	{asksFor: isA[Protocol], variants: byProtocol},
	{asksFor: func(m Match) bool { t, ok := m.(AddressType); return isA[Source](m) || ok && !t.Destination }, variants: bySource},
	{asksFor: func(m Match) bool { t, ok := m.(AddressType); return isA[Destination](m) || ok && t.Destination }, variants: byDestination},
	{asksFor: func(m Match) bool { p, ok := m.(Ports); return ok && p.Source }, variants: byPort},
	{asksFor: func(m Match) bool { p, ok := m.(Ports); return ok && !p.Source }, variants: byPort},
	{asksFor: isA[Owner], variants: byOwner},
	{asksFor: isA[SYN], variants: bySYN},
	{asksFor: isA[Conntrack], variants: byState},
	{asksFor: isA[Mark], variants: byMark},
}

func isA[T Match](m Match) bool {
	_, ok := m.(T)
	return ok
}

// single returns the reused slice with one trial in it.
func (g *trialMaker) single(t Trial) []Trial {
	g.room = append(g.room[:0], t)
	return g.room
}

// keepMatching keeps the trials whose packets have everything that is asked for
// when they set out.
func (g *trialMaker) keepMatching(trials []Trial, asked []Match) []Trial {
	g.room = trials
	packet := &g.scratch
	return slices.DeleteFunc(trials, func(t Trial) bool {
		*packet = traversal{stack: g.wanted, host: t.host, bound: t.Packet.Interface, hook: "OUTPUT", Packet: t.Packet, tracked: true}
		if packet.Direction == Out && !packet.Src.IsValid() {
			packet.chooseSource()
		}
		return slices.ContainsFunc(asked, func(m Match) bool { return !m.matches(packet) })
	})
}

func byInInterface(maker *trialMaker, t Trial, asked []Match, _ string, free bool) []Trial {
	accepted := func(name string) bool {
		return !slices.ContainsFunc(asked, func(m Match) bool {
			in := m.(InInterface)
			return matchesName(in.Name, name) == in.Not
		})
	}
	if t.Packet.Direction == Out { // it comes in over lo, if at all
		if accepted(loopbackName) {
			return maker.single(t)
		}
		return nil
	}
	all := maker.room[:0]
	for _, name := range maker.interfaces(asked, free) {
		if accepted(name) {
			t.Packet.Interface = name
			all = append(all, maker.leavingBy(name, t))
		}
	}
	return all
}

// interfaces returns those of the host and, for a rule of ours, those that it
// names: arguments may name an interface that does not exist yet.
func (g *trialMaker) interfaces(asked []Match, ours bool) []string {
	names := []string{g.host.Uplink}
	for _, i := range g.host.Interfaces {
		names = union(names, i.Name)
	}
	for _, m := range asked {
		in, is := m.(InInterface)
		if name := strings.TrimSuffix(in.Name, "+"); ours && is && name != loopbackName && name != "" {
			names = union(names, name)
		}
		out, is := m.(OutInterface)
		if name := strings.TrimSuffix(out.Name, "+"); ours && is && name != loopbackName && name != "" {
			names = union(names, name)
		}
	}
	return names
}

func byOutInterface(maker *trialMaker, t Trial, asked []Match, _ string, free bool) []Trial {
	accepted := func(name string) bool {
		return !slices.ContainsFunc(asked, func(m Match) bool {
			out := m.(OutInterface)
			return matchesName(out.Name, name) == out.Not
		})
	}
	if t.Packet.Direction == In {
		return nil
	}
	all := maker.room[:0]
	if accepted(loopbackName) { // its destination decides whether it leaves over lo
		all = append(all, t)
	}
	for _, name := range maker.interfaces(asked, free) {
		if accepted(name) {
			all = append(all, maker.leavingBy(name, t))
		}
	}
	return all
}

func byProtocol(maker *trialMaker, t Trial, asked []Match, _ string, _ bool) []Trial {
	if all := maker.keepMatching(maker.single(t), asked); len(all) > 0 {
		return all
	}
	all := maker.room[:0]
	for _, protocol := range []string{"tcp", "udp"} {
		t.Packet.Protocol = protocol
		all = append(all, t)
	}
	return maker.keepMatching(all, asked)
}

// rewritten reports whether a packet may have another destination at a hook than it
// was sent to. Then it can meet a rule there without having asked for it.
func rewritten(hook string) bool { return hook != "PREROUTING" }

func bySource(maker *trialMaker, t Trial, asked []Match, _ string, free bool) []Trial {
	var pool []netip.Addr
	transparent := t.Packet.Src.IsValid() && !maker.host.local(t.Packet.Src)
	if t.Packet.Direction == Out && !transparent && !free {
		pool = t.host.Addresses
	} else {
		for _, m := range asked {
			if s, is := m.(Source); is {
				pool = append(pool, s.Prefix.Addr(), hostOf(s.Prefix), lastOf(s.Prefix), lastOf(s.Prefix).Next())
			}
		}
		pool = append(pool, maker.outside...)
	}
	all := maker.single(t)
	for _, addr := range pool {
		if !addr.IsValid() || !maker.family.Of(addr) || t.Packet.Direction == In && (maker.host.local(addr) || ThisHost(addr)) {
			continue
		}
		t.Packet.Src = addr
		all = append(all, t)
	}
	return maker.keepMatching(all, asked)
}

func byDestination(maker *trialMaker, t Trial, asked []Match, hook string, free bool) []Trial {
	unchanged, pool := t, slices.Clone(t.host.Addresses)
	if t.Packet.Direction == Out {
		for _, m := range asked {
			d, is := m.(Destination)
			if !is {
				continue
			}
			pool = append(pool, hostOf(d.Prefix), lastOf(d.Prefix), lastOf(d.Prefix).Next())
			for _, edge := range maker.edges {
				if d.Prefix.Contains(edge) {
					pool = append(pool, edge)
				}
			}
		}
		pool = append(append(pool, maker.outside...), maker.family.loopback())
	}
	all := maker.single(t)
	for _, addr := range pool {
		if addr.IsValid() && maker.family.Of(addr) {
			t.Packet.Dst = addr
			all = append(all, t)
		}
	}
	found := maker.keepMatching(all, asked)
	if rewritten(hook) && !free {
		found = append(found, unchanged)
	}
	return found
}

// hostOf returns the first address of a prefix that a host can have.
func hostOf(p netip.Prefix) netip.Addr {
	if p.Bits() >= p.Addr().BitLen()-1 {
		return p.Addr()
	}
	return p.Addr().Next()
}

// lastOf returns the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	bytes := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(bytes)*8; i++ {
		bytes[i/8] |= 0x80 >> (i % 8)
	}
	addr, _ := netip.AddrFromSlice(bytes)
	return addr
}

func byPort(maker *trialMaker, t Trial, asked []Match, hook string, free bool) []Trial {
	unchanged, source := t, asked[0].(Ports).Source
	pool := []uint16{maker.port}
	for _, m := range asked {
		for _, r := range m.(Ports).Ranges {
			for port := int(r.First); port <= int(r.Last); port++ {
				if !slices.Contains(maker.ownPorts, uint16(port)) {
					pool = append(pool, uint16(port))
					break
				}
			}
			pool = append(pool, r.First, r.Last, r.Last+1, r.First-1)
		}
	}
	pool = append(pool, maker.ownPorts...)
	all := maker.single(t)
	for _, port := range pool {
		switch {
		case source && maker.proxy[port] && t.Packet.Direction == Out:
			continue // nobody else can send from there
		case source:
			t.Packet.SrcPort = port
		default:
			t.Packet.DstPort = port
		}
		all = append(all, t)
	}
	found := maker.keepMatching(all, asked)
	if rewritten(hook) && !free {
		found = append(found, unchanged)
	}
	return found
}

func byOwner(maker *trialMaker, t Trial, asked []Match, _ string, _ bool) []Trial {
	if t.Packet.Direction == In {
		return nil
	}
	all := maker.single(t)
	for _, m := range asked {
		o := m.(Owner)
		for _, id := range []uint32{o.First, o.Last, o.Last + 1, o.First - 1, 0} {
			variant := t
			if o.Group {
				variant.Packet.GID = id
			} else {
				variant.Packet.UID = id
			}
			if t.Packet.opens() || !maker.ownerNamed(o.Group, id) {
				all = append(all, variant) // the app answers, not the proxy
			}
		}
	}
	return maker.keepMatching(all, asked)
}

// ownerNamed reports whether rules of ours match a user or group.
func (g *trialMaker) ownerNamed(group bool, id uint32) bool {
	return slices.ContainsFunc(g.owners, func(o Owner) bool { return o.Group == group && o.First <= id && id <= o.Last })
}

func bySYN(maker *trialMaker, t Trial, asked []Match, _ string, _ bool) []Trial {
	if t.Packet.Protocol != "tcp" || t.Packet.opens() == asked[0].(SYN).Not {
		return nil
	}
	return maker.single(t)
}

// byState keeps a packet's state, which no rule sees before conntrack does, and
// adds the states that the rule matches.
func byState(maker *trialMaker, t Trial, asked []Match, _ string, _ bool) []Trial {
	if unchanged := maker.keepMatching(maker.single(t), asked); len(unchanged) > 0 {
		return unchanged
	}
	all := maker.room[:0]
	for _, s := range states {
		variant := t
		variant.Packet.State = s
		all = append(all, variant)
	}
	return append(maker.keepMatching(all, asked), t)
}

// byMark gives a packet the marks that rules of ours match. Marks of others are set
// by rules on the packet's path.
func byMark(maker *trialMaker, t Trial, asked []Match, _ string, free bool) []Trial {
	if !free {
		return maker.single(t)
	}
	all := maker.single(t)
	for _, m := range asked {
		mark := m.(Mark)
		switch {
		case mark.Connection:
			t.Packet.ConnMark, t.Packet.State = mark.Value, Established
		case t.Packet.Direction == Out:
			t.Packet.Mark = mark.Value
		}
		all = append(all, t)
	}
	return all
}

func union[T comparable](set []T, value T) []T {
	if slices.Contains(set, value) {
		return set
	}
	return append(set, value)
}
