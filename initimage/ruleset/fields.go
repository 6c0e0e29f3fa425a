package ruleset

import (
	"net/netip"
	"slices"
	"strings"
)

// field is a property of packets that rules look at: the matches that ask for
// it, and the packets that have what they ask for.
type field struct {
	of       func(m Match) bool
	variants func(g *trialMaker, t Trial, asked []Match, hook string, free bool) []Trial
}

// fields are in the order in which they are set: which addresses a packet can
// have depends on its interface, and which ports on its protocol.
var fields = []field{
	{of: is[InInterface], variants: byInInterface},
	{of: is[OutInterface], variants: byOutInterface},
	{of: is[Protocol], variants: byProtocol},
	{of: func(m Match) bool { t, ok := m.(AddressType); return is[Source](m) || ok && !t.Destination }, variants: bySource},
	{of: func(m Match) bool { t, ok := m.(AddressType); return is[Destination](m) || ok && t.Destination }, variants: byDestination},
	{of: func(m Match) bool { p, ok := m.(Ports); return ok && p.Source }, variants: byPort},
	{of: func(m Match) bool { p, ok := m.(Ports); return ok && !p.Source }, variants: byPort},
	{of: is[Owner], variants: byOwner},
	{of: is[SYN], variants: bySYN},
	{of: is[Conntrack], variants: byState},
	{of: is[Mark], variants: byMark},
}

func is[T Match](m Match) bool {
	_, ok := m.(T)
	return ok
}

// with is the room for trials, with one in it.
func (g *trialMaker) with(t Trial) []Trial {
	g.room = append(g.room[:0], t)
	return g.room
}

// have keeps the trials whose packets, as they begin, have all that is asked
// for.
func (g *trialMaker) have(trials []Trial, asked []Match) []Trial {
	g.room = trials
	h := &g.hop
	return slices.DeleteFunc(trials, func(t Trial) bool {
		*h = hop{host: t.host, hook: "OUTPUT", Packet: t.Packet, tracked: true}
		if h.Direction == Out && !h.Src.IsValid() {
			h.Src = sourceFor(h.host, h.Packet)
		}
		return slices.ContainsFunc(asked, func(m Match) bool { return !m.matches(h) })
	})
}

func byInInterface(g *trialMaker, t Trial, asked []Match, _ string, free bool) []Trial {
	meets := func(name string) bool {
		return !slices.ContainsFunc(asked, func(m Match) bool {
			in := m.(InInterface)
			return matchesName(in.Name, name) == in.Not
		})
	}
	if t.Packet.Direction == Out { // it comes in over lo, if at all
		if meets(loopbackName) {
			return g.with(t)
		}
		return nil
	}
	all := g.room[:0]
	for _, name := range g.interfaces(asked, free) {
		if meets(name) {
			t.Packet.Interface = name
			all = append(all, g.by(name, t))
		}
	}
	return all
}

// interfaces are those of the host, and of a rule of ours those that it names:
// arguments may name one that is yet to come.
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

func byOutInterface(g *trialMaker, t Trial, asked []Match, _ string, free bool) []Trial {
	meets := func(name string) bool {
		return !slices.ContainsFunc(asked, func(m Match) bool {
			out := m.(OutInterface)
			return matchesName(out.Name, name) == out.Not
		})
	}
	if t.Packet.Direction == In {
		return nil
	}
	all := g.room[:0]
	if meets(loopbackName) { // whether it leaves over lo is up to its destination
		all = append(all, t)
	}
	for _, name := range g.interfaces(asked, free) {
		if meets(name) {
			all = append(all, g.by(name, t))
		}
	}
	return all
}

func byProtocol(g *trialMaker, t Trial, asked []Match, _ string, _ bool) []Trial {
	if all := g.have(g.with(t), asked); len(all) > 0 {
		return all
	}
	all := g.room[:0]
	for _, protocol := range []string{"tcp", "udp"} {
		t.Packet.Protocol = protocol
		all = append(all, t)
	}
	return g.have(all, asked)
}

// rewritten reports whether a packet may have another destination at a hook
// than it was sent to. A rule there may be met by one that did not ask for it.
func rewritten(hook string) bool { return hook != "PREROUTING" }

func bySource(g *trialMaker, t Trial, asked []Match, _ string, free bool) []Trial {
	var pool []netip.Addr
	transparent := t.Packet.Src.IsValid() && !g.host.local(t.Packet.Src)
	if t.Packet.Direction == Out && !transparent && !free {
		pool = t.host.Addresses
	} else {
		for _, m := range asked {
			if s, is := m.(Source); is {
				pool = append(pool, s.Prefix.Addr(), hostOf(s.Prefix), lastOf(s.Prefix), lastOf(s.Prefix).Next())
			}
		}
		pool = append(pool, g.outside...)
	}
	all := g.with(t)
	for _, addr := range pool {
		if !addr.IsValid() || !g.family.Of(addr) || t.Packet.Direction == In && (g.host.local(addr) || ThisHost(addr)) {
			continue
		}
		t.Packet.Src = addr
		all = append(all, t)
	}
	return g.have(all, asked)
}

func byDestination(g *trialMaker, t Trial, asked []Match, hook string, free bool) []Trial {
	as, pool := t, slices.Clone(t.host.Addresses)
	if t.Packet.Direction == Out {
		for _, m := range asked {
			d, is := m.(Destination)
			if !is {
				continue
			}
			pool = append(pool, hostOf(d.Prefix), lastOf(d.Prefix), lastOf(d.Prefix).Next())
			for _, edge := range g.edges {
				if d.Prefix.Contains(edge) {
					pool = append(pool, edge)
				}
			}
		}
		pool = append(append(pool, g.outside...), g.family.loopback())
	}
	all := g.with(t)
	for _, addr := range pool {
		if addr.IsValid() && g.family.Of(addr) {
			t.Packet.Dst = addr
			all = append(all, t)
		}
	}
	found := g.have(all, asked)
	if rewritten(hook) && !free {
		found = append(found, as)
	}
	return found
}

// hostOf is the first address of a range that a host can have.
func hostOf(p netip.Prefix) netip.Addr {
	if p.Bits() >= p.Addr().BitLen()-1 {
		return p.Addr()
	}
	return p.Addr().Next()
}

// lastOf is the last address of a range.
func lastOf(p netip.Prefix) netip.Addr {
	bytes := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(bytes)*8; i++ {
		bytes[i/8] |= 0x80 >> (i % 8)
	}
	addr, _ := netip.AddrFromSlice(bytes)
	return addr
}

func byPort(g *trialMaker, t Trial, asked []Match, hook string, free bool) []Trial {
	as, source := t, asked[0].(Ports).Source
	pool := []uint16{g.port}
	for _, m := range asked {
		for _, r := range m.(Ports).Ranges {
			for port := int(r.First); port <= int(r.Last); port++ {
				if !slices.Contains(g.ownPorts, uint16(port)) {
					pool = append(pool, uint16(port))
					break
				}
			}
			pool = append(pool, r.First, r.Last, r.Last+1, r.First-1)
		}
	}
	pool = append(pool, g.ownPorts...)
	all := g.with(t)
	for _, port := range pool {
		switch {
		case source && g.proxy[port] && t.Packet.Direction == Out:
			continue // nobody else can send from there
		case source:
			t.Packet.SrcPort = port
		default:
			t.Packet.DstPort = port
		}
		all = append(all, t)
	}
	found := g.have(all, asked)
	if rewritten(hook) && !free {
		found = append(found, as)
	}
	return found
}

func byOwner(g *trialMaker, t Trial, asked []Match, _ string, _ bool) []Trial {
	if t.Packet.Direction == In {
		return nil
	}
	all := g.with(t)
	for _, m := range asked {
		o := m.(Owner)
		for _, id := range []uint32{o.First, o.Last, o.Last + 1, o.First - 1, 0} {
			variant := t
			if o.Group {
				variant.Packet.GID = id
			} else {
				variant.Packet.UID = id
			}
			if t.Packet.opens() || !g.owned(o.Group, id) {
				all = append(all, variant) // the app answers, and not the proxy
			}
		}
	}
	return g.have(all, asked)
}

// owned reports whether rules of ours look for a user or group.
func (g *trialMaker) owned(group bool, id uint32) bool {
	return slices.ContainsFunc(g.owners, func(o Owner) bool { return o.Group == group && o.First <= id && id <= o.Last })
}

func bySYN(g *trialMaker, t Trial, asked []Match, _ string, _ bool) []Trial {
	if t.Packet.Protocol != "tcp" || t.Packet.opens() == asked[0].(SYN).Not {
		return nil
	}
	return g.with(t)
}

// byState leaves a packet its state, which is not seen before conntrack is, and
// gives it those that the rule takes.
func byState(g *trialMaker, t Trial, asked []Match, _ string, _ bool) []Trial {
	if as := g.have(g.with(t), asked); len(as) > 0 {
		return as
	}
	all := g.room[:0]
	for _, s := range states {
		variant := t
		variant.Packet.State = s
		all = append(all, variant)
	}
	return append(g.have(all, asked), t)
}

// byMark gives a packet the marks that rules of ours look for. Those of others
// come from rules, on the packet's way.
func byMark(g *trialMaker, t Trial, asked []Match, _ string, free bool) []Trial {
	if !free {
		return g.with(t)
	}
	all := g.with(t)
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
