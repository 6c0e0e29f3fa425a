package ruleset

import (
	"net/netip"
	"slices"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// The methods here are all that a walk compares of its packet. Each returns the
// result, and tells the survey of it, if there is one: the result is the same for
// all packets of the class.

// sourceIn reports whether the source address is in a prefix.
func (h *traversal) sourceIn(p netip.Prefix) bool {
	inside := p.Contains(h.Src)
	if h.survey != nil {
		h.survey.prefix(h.survey.from.src, p, inside)
	}
	return inside
}

// destinationIn reports whether the destination address is in a prefix.
func (h *traversal) destinationIn(p netip.Prefix) bool {
	inside := p.Contains(h.Dst)
	if h.survey != nil {
		h.survey.prefix(h.survey.from.dst, p, inside)
	}
	return inside
}

// sourceLocal reports whether the source is an address of this host.
func (h *traversal) sourceLocal() bool {
	local := h.host.local(h.Src)
	if h.survey != nil {
		h.survey.among(h.survey.from.src, h.survey.own, local)
	}
	return local
}

// destinationLocal reports whether the destination is an address of this host.
func (h *traversal) destinationLocal() bool {
	local := h.host.local(h.Dst)
	if h.survey != nil {
		h.survey.among(h.survey.from.dst, h.survey.own, local)
	}
	return local
}

// destinationLoopback reports whether the destination is a loopback address.
func (h *traversal) destinationLoopback() bool {
	loopback := isLoopback(h.Dst)
	if h.survey != nil {
		h.survey.among(h.survey.from.dst, h.survey.space.LoopbackValues(), loopback)
	}
	return loopback
}

// portIn reports whether the source or the destination port is in one of the ranges.
func (h *traversal) portIn(source bool, ranges interception.PortRanges) bool {
	port := h.DstPort
	if source {
		port = h.SrcPort
	}
	inside := ranges.Contains(port)
	if h.survey != nil {
		field := h.survey.from.dstPort
		if source {
			field = h.survey.from.srcPort
		}
		h.survey.among(field, PortValues(ranges), inside)
	}
	return inside
}

// cameBy reports whether the packet came in by an interface with such a name.
func (h *traversal) cameBy(pattern string) bool {
	inside := matchesName(pattern, h.in)
	if h.survey != nil && h.Direction == In {
		h.survey.name(pattern, inside)
	}
	return inside
}

// boundTo reports whether the socket that sends the packet is bound to an interface.
func (h *traversal) boundTo(name string) bool {
	inside := h.bound == name
	if h.survey != nil && h.Direction == Out {
		h.survey.name(name, inside)
	}
	return inside
}

// isProtocol reports whether the match accepts the packet's protocol.
func (h *traversal) isProtocol(m Protocol) bool {
	accepted := m.accepts(h.Packet.Protocol)
	if h.survey != nil {
		h.survey.protocol(m, accepted)
	}
	return accepted
}

// ownedBy reports whether the packet's process has one of the match's ids.
func (h *traversal) ownedBy(m Owner) bool {
	id := h.UID
	if m.Group {
		id = h.GID
	}
	inside := m.First <= id && id <= m.Last
	if h.survey != nil {
		field := h.survey.from.uid
		if m.Group {
			field = h.survey.from.gid
		}
		h.survey.between(field, Interval{numberOf(m.First), numberOf(m.Last)}, inside)
	}
	return inside
}

// marked reports whether the packet's mark has some bits.
func (h *traversal) marked(value, mask uint32) bool {
	if h.survey != nil {
		h.survey.mark(h.survey.from.mark, h.Mark, value, mask)
	}
	return h.Mark&mask == value
}

// socketMarked reports whether the mark of the socket that awaits the packet has some
// bits.
func (h *traversal) socketMarked(value, mask uint32) bool {
	if h.survey != nil {
		h.survey.mark(h.survey.from.socketMark, h.SocketMark, value, mask)
	}
	return h.SocketMark&mask == value
}

// connectionMarked reports whether the mark of the packet's connection, which
// conntrack knows, has some bits.
func (h *traversal) connectionMarked(value, mask uint32) bool {
	if h.survey != nil {
		h.survey.mark(h.survey.from.connMark, h.ConnMark, value, mask)
	}
	return h.ConnMark&mask == value
}

// hasState reports whether the packet's own state is one of some.
func (h *traversal) hasState(among ...State) bool {
	inside := slices.Contains(among, h.State)
	if h.survey != nil {
		h.survey.among(h.survey.from.state, h.survey.space.StateValues(among...), inside)
	}
	return inside
}

// isTracked reports whether conntrack has seen the packet, and has a connection for
// it.
func (h *traversal) isTracked() bool { return h.tracked && !h.hasState(Untracked, Invalid) }

// The methods that follow are all that a rule can change of a packet. They tell the
// survey of it, too: what a rule has set is the same for all packets of the class.

func (h *traversal) setSource(to netip.Addr) {
	h.Src = to
	if h.survey != nil {
		h.survey.from.src = fixed
	}
}

func (h *traversal) setDestination(to netip.Addr) {
	h.Dst = to
	if h.survey != nil {
		h.survey.from.dst = fixed
	}
}

func (h *traversal) setPort(to uint16) {
	h.DstPort = to
	if h.survey != nil {
		h.survey.from.dstPort = fixed
	}
}

func (h *traversal) setState(to State) {
	h.State = to
	if h.survey != nil {
		h.survey.from.state = fixed
	}
}

// setMark clears bits of the packet mark, then flips some.
func (h *traversal) setMark(cleared, flipped uint32) {
	h.Mark = h.Mark&^cleared ^ flipped
	if h.survey != nil {
		h.survey.setMark(h.survey.from.mark, cleared, flipped)
	}
}

// setConnectionMark does the same to the mark of the connection, if there is one.
func (h *traversal) setConnectionMark(cleared, flipped uint32) {
	if !h.isTracked() {
		return
	}
	h.ConnMark = h.ConnMark&^cleared ^ flipped
	if h.survey != nil {
		h.survey.setMark(h.survey.from.connMark, cleared, flipped)
	}
}

// saveMark clears bits of the connection's mark, then flips those that the packet
// has among some.
func (h *traversal) saveMark(cleared, copied uint32) {
	if !h.isTracked() {
		return
	}
	if h.survey != nil {
		h.survey.copyMark(h.survey.from.connMark, h.ConnMark, cleared, h.survey.from.mark, h.Mark, copied)
	}
	h.ConnMark = h.ConnMark&^cleared ^ h.Mark&copied
}

// restoreMark clears bits of the packet mark, then flips those that the connection's
// mark has among some.
func (h *traversal) restoreMark(cleared, copied uint32) {
	if !h.isTracked() {
		return
	}
	if h.survey != nil {
		h.survey.copyMark(h.survey.from.mark, h.Mark, cleared, h.survey.from.connMark, h.ConnMark, copied)
	}
	h.Mark = h.Mark&^cleared ^ h.ConnMark&copied
}

// changedSince reports whether the destination or the mark is another than before,
// so that the packet is routed again. It leaves by some interface otherwise.
func (h *traversal) changedSince(before *Packet, leaves string) bool {
	if h.survey != nil && !h.survey.changed(before, &h.Packet) && h.route() != leaves {
		h.survey.mixed = true
	}
	return before.Dst != h.Dst || before.Mark != h.Mark
}

// The methods that follow are how a survey takes a result that one field decides.

// prefix takes whether an address is in a prefix.
func (v *Survey) prefix(f Field, p netip.Prefix, inside bool) {
	if f != fixed && v.space.Family.Of(p.Addr()) {
		v.between(f, prefixInterval(p), inside)
	}
}

// name takes whether the name of the packet's interface has a pattern.
func (v *Survey) name(pattern string, inside bool) {
	if v.from.in != fixed {
		v.among(v.from.in, placesWhere(v.space.interfaces, func(name string) bool { return matchesName(pattern, name) }), inside)
	}
}

// protocol takes whether a match accepts the packet's protocol.
func (v *Survey) protocol(m Protocol, accepts bool) {
	if v.from.protocol != fixed {
		v.among(v.from.protocol, placesWhere(Protocols, m.accepts), accepts)
	}
}

// opened takes whether a packet is the first of its connection.
func (v *Survey) opened(p Packet) {
	if !p.Midstream {
		v.among(v.from.state, v.space.StateValues(New, Related), p.opens())
	}
}

// mark takes whether a mark has some bits. One group of bits that differs is enough
// to tell that it does not.
func (v *Survey) mark(from []groupOrigin, current, value, mask uint32) {
	if value&^mask != 0 {
		return // no mark has them
	}
	differing := -1
	for group, bits := range v.space.groups {
		if (current^value)&mask&bits != 0 {
			if differing = group; from[group].field == fixed {
				return // whatever the packet's mark is
			}
		}
	}
	for group, bits := range v.space.groups {
		if bits&mask == 0 || differing >= 0 && differing != group {
			continue
		}
		packed := numberOf(v.space.packs[group].pack(value) ^ from[group].flipped)
		v.between(from[group].field, Interval{packed, packed}, differing < 0)
		if differing < 0 {
			from[group] = groupOrigin{field: fixed} // all packets of the class have these bits
		}
	}
}

// setMark takes that a mark has some bits cleared and others flipped.
func (v *Survey) setMark(mark []groupOrigin, cleared, flipped uint32) {
	for group, bits := range v.space.groups {
		if bits&cleared != 0 {
			mark[group] = groupOrigin{field: fixed}
		} else if mark[group].field != fixed {
			mark[group].flipped ^= v.space.packs[group].pack(flipped)
		}
	}
}

// copyMark takes that a mark has some bits cleared, and then some of another flipped
// in. The values are those before.
func (v *Survey) copyMark(to []groupOrigin, value, cleared uint32, from []groupOrigin, added, mask uint32) {
	for group, bits := range v.space.groups {
		if bits&cleared != 0 {
			to[group], value = groupOrigin{field: fixed}, value&^bits
		}
		pack := v.space.packs[group]
		switch {
		case bits&mask == 0:
		case from[group].field == fixed && to[group].field == fixed:
		case from[group].field == fixed:
			to[group].flipped ^= pack.pack(added)
		case to[group].field == fixed:
			to[group] = groupOrigin{from[group].field, from[group].flipped ^ pack.pack(value)}
		default:
			v.mixed, to[group] = true, groupOrigin{field: fixed}
		}
	}
}

// changed takes whether a chain changed the destination or the mark of a packet, by
// which the kernel tells whether to route it again. One difference is enough. It
// returns false if that depends on two fields together, so that some packets of the
// class have changed and others have not.
func (v *Survey) changed(before, now *Packet) bool {
	if v.before.dst != v.from.dst { // a rule has set it
		at := addressNumber(now.Dst)
		v.between(v.before.dst, Interval{at, at}, before.Dst == now.Dst)
	}
	if before.Dst != now.Dst {
		return true
	}
	differing, decided := -1, true
	for group, bits := range v.space.groups {
		old, current := v.before.mark[group].field, v.from.mark[group].field
		if (before.Mark^now.Mark)&bits != 0 && (differing < 0 || old == fixed || current == fixed || old == current) {
			differing = group // one that can be told, if there is one
		}
	}
	for group, pack := range v.space.packs {
		old, current := v.before.mark[group], v.from.mark[group]
		if old.field == current.field || differing >= 0 && differing != group {
			continue
		}
		switch {
		case current.field == fixed:
			equal := numberOf(pack.pack(now.Mark) ^ old.flipped)
			v.between(old.field, Interval{equal, equal}, differing < 0)
		case old.field == fixed:
			equal := numberOf(pack.pack(before.Mark) ^ current.flipped)
			v.between(current.field, Interval{equal, equal}, differing < 0)
		default:
			decided = false
		}
	}
	return decided
}
