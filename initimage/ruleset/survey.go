package ruleset

import (
	"slices"
)

// Survey divides a box of packets into classes whose packets go exactly the same
// way: they meet the same rules, and end alike.
//
// It takes a box, and walks one packet of it. Every comparison on the way narrows
// the class to the packets for which it has the same result. A comparison looks at
// one field, so that the class is a box, too. What is left of the box, at most one
// box for each field, is divided next. So the classes are disjoint and cover
// everything, and there are as many walks as classes.
//
// Several walks may narrow one class: of the packet, of the answer to it, and of a
// connection that the proxy makes because of it. A Flow keeps which of their fields
// are fields of the first packet.
//
//	for survey := NewSurvey(box); survey.Next(); {
//		first := survey.Flow(template)
//		path, answer := survey.Walk(stack, &host, &first)
//		class := survey.Class()
//	}
type Survey struct {
	space *Space
	todo  []Box
	box   Box
	mixed bool

	// What the walks of this class have compared.
	within  []Values     // the fields' values are among these, if there are any
	without [][]Interval // and not among these
	order   []Field      // in which fields were compared first

	// Of the packet that is walked.
	from   origins
	before origins // when it came to the last chain
	source Field   // of the source address, once it is chosen
	host   *Host
	own    Values // addresses of that host
}

// Flow is a packet, and where its fields come from.
type Flow struct {
	Packet Packet
	from   origins
}

// origins tells which field of the first packet each field of a packet is; fixed
// for none.
type origins struct {
	protocol, in, state, uid, gid, src, dst, srcPort, dstPort Field
	mark, connMark, socketMark                                []groupOrigin
}

// groupOrigin is a field of marks, some bits of it flipped.
type groupOrigin struct {
	field   Field
	flipped uint32
}

// NewSurvey returns a survey of some packets.
func NewSurvey(box Box) *Survey {
	n := box.space.fieldCount()
	survey := &Survey{space: box.space, within: make([]Values, n), without: make([][]Interval, n)}
	if !slices.ContainsFunc(box.values, func(v Values) bool { return v != nil && len(v) == 0 }) {
		survey.todo = []Box{box}
	}
	return survey
}

// Next goes on to the next class. It returns false if all packets have been in one.
func (v *Survey) Next() bool {
	if len(v.todo) == 0 {
		return false
	}
	last := len(v.todo) - 1
	v.box, v.todo, v.mixed = v.todo[last], v.todo[:last], false
	for _, f := range v.order {
		v.within[f], v.without[f] = nil, v.without[f][:0]
	}
	v.order = v.order[:0]
	return true
}

// Flow returns one packet of the box. What the box does not look at is as in the
// template.
func (v *Survey) Flow(template Packet) Flow {
	flow := Flow{Packet: template}
	flow.Packet.Family = v.space.Family
	origin := func(f Field) Field {
		if v.box.values[f] == nil {
			return fixed
		}
		v.space.put(&flow.Packet, f, v.box.values[f].pick(v.space.prefer[f]))
		return f
	}
	flow.from = origins{
		protocol: origin(FieldProtocol), in: origin(FieldInterface), state: origin(FieldState),
		uid: origin(FieldUID), gid: origin(FieldGID),
		src: origin(FieldSrc), dst: origin(FieldDst), srcPort: origin(FieldSrcPort), dstPort: origin(FieldDstPort),
		mark: make([]groupOrigin, len(v.space.groups)), connMark: make([]groupOrigin, len(v.space.groups)),
	}
	for group := range v.space.groups {
		flow.from.mark[group].field = origin(v.space.markField(false, group))
		flow.from.connMark[group].field = origin(v.space.markField(true, group))
	}
	return flow
}

// TakeProtocol and the methods after it give the packet a field of another. What no
// packet has given it is the same for all packets of a class.
func (f *Flow) TakeProtocol(of *Flow) {
	f.Packet.Protocol, f.from.protocol = of.Packet.Protocol, of.from.protocol
}

// TakeSource takes another packet's source as the source.
func (f *Flow) TakeSource(of *Flow) { f.Packet.Src, f.from.src = of.Packet.Src, of.from.src }

// TakeDestination takes another packet's destination as the destination.
func (f *Flow) TakeDestination(of *Flow) { f.Packet.Dst, f.from.dst = of.Packet.Dst, of.from.dst }

// TakePort takes another packet's destination port as the destination port.
func (f *Flow) TakePort(of *Flow) {
	f.Packet.DstPort, f.from.dstPort = of.Packet.DstPort, of.from.dstPort
}

// CallItself takes the packet's destination as its source.
func (f *Flow) CallItself() { f.Packet.Src, f.from.src = f.Packet.Dst, f.from.dst }

// Same reports whether two packets are the same, and for the same reasons: then they
// are the same for all packets of the class.
func (f *Flow) Same(other *Flow) bool {
	a, b := f.from, other.from
	sameMarks := func(a, b []groupOrigin) bool {
		for i := range max(len(a), len(b)) {
			if at(a, i) != at(b, i) {
				return false
			}
		}
		return true
	}
	return f.Packet == other.Packet && a.protocol == b.protocol && a.in == b.in && a.state == b.state && a.uid == b.uid && a.gid == b.gid &&
		a.src == b.src && a.dst == b.dst && a.srcPort == b.srcPort && a.dstPort == b.dstPort &&
		sameMarks(a.mark, b.mark) && sameMarks(a.connMark, b.connMark) && sameMarks(a.socketMark, b.socketMark)
}

// at returns where a group of bits comes from.
func at(marks []groupOrigin, group int) groupOrigin {
	if group < len(marks) {
		return marks[group]
	}
	return groupOrigin{}
}

// FreshPort gives a packet any source port, as the kernel does.
func (v *Survey) FreshPort(f *Flow) {
	if port := v.HopPort(); port != 0 {
		f.Packet.SrcPort, f.from.srcPort = port, FieldHopPort
	}
}

// HopPort returns the port that FreshPort gives; 0 if the box does not look at it.
func (v *Survey) HopPort() uint16 {
	if v.box.values[FieldHopPort] == nil {
		return 0
	}
	return uint16(v.box.values[FieldHopPort].pick(v.space.prefer[FieldHopPort]).low)
}

// Walk walks a packet through a stack, and narrows the class. It returns the path,
// and the packet that the other end sends back. A packet without a source gets the
// one that the kernel chooses.
func (v *Survey) Walk(s *Stack, host *Host, f *Flow) (Path, Flow) {
	v.at(host)
	v.from = f.from
	for _, marks := range []*[]groupOrigin{&v.from.mark, &v.from.connMark, &v.from.socketMark} {
		*marks = make([]groupOrigin, len(v.space.groups))
	}
	copy(v.from.mark, f.from.mark)
	copy(v.from.socketMark, f.from.socketMark)
	copy(v.from.connMark, f.from.connMark)
	v.before.mark = make([]groupOrigin, len(v.space.groups))
	s.survey = v
	path := s.trace(host, f.Packet, nil, true)
	s.survey = nil
	if !f.Packet.Src.IsValid() {
		f.Packet.Src, f.from.src = path.Answer.Dst, v.source
	}
	back := Flow{Packet: path.Answer}
	back.from.protocol = f.from.protocol
	back.from.src, back.from.srcPort, back.from.dst, back.from.dstPort = f.from.dst, f.from.dstPort, f.from.src, f.from.srcPort
	if back.Packet.Direction == Out && path.Outcome.Fate == Redirected {
		back.from.src, back.from.srcPort = v.from.dst, v.from.dstPort
	}
	if back.Packet.Answer {
		back.from.socketMark = f.from.mark
	}
	if back.Packet.Direction == Out && s.current.inherited() {
		back.from.mark = v.from.mark
	}
	if !path.Untracked {
		back.from.connMark = v.from.connMark
	}
	return path, back
}

// at has the survey look at addresses as those of a host.
func (v *Survey) at(host *Host) {
	if v.host != host {
		v.host, v.own = host, v.space.localValues(host)
	}
}

// IsLocal narrows the class by whether a packet's destination is an address of the
// host.
func (v *Survey) IsLocal(host *Host, f *Flow) {
	v.at(host)
	v.among(f.from.dst, v.own, host.local(f.Packet.Dst))
}

// ComparePort narrows the class by whether a packet has one of some ports, as its
// destination or as its source.
func (v *Survey) ComparePort(f *Flow, source bool, ports ...uint16) {
	field, port := f.from.dstPort, f.Packet.DstPort
	if source {
		field, port = f.from.srcPort, f.Packet.SrcPort
	}
	v.among(field, Only(ports...), slices.Contains(ports, port))
}

// Mixed reports whether the walks of the class have combined two marks bit by bit.
// Then the class may hold packets that go another way.
func (v *Survey) Mixed() bool { return v.mixed }

// Class ends the walks of a class, and returns it.
func (v *Survey) Class() Box {
	class := Box{v.space, slices.Clone(v.box.values)}
	for _, f := range v.order {
		values := v.box.values[f]
		if v.within[f] != nil {
			values = values.And(v.within[f])
		}
		if len(v.without[f]) > 0 {
			values = values.Without(Values(v.without[f]).sorted())
		}
		rest := v.box.values[f].Without(values)
		if len(rest) == 0 {
			continue
		}
		others := Box{v.space, slices.Clone(class.values)}
		others.values[f] = rest
		v.todo = append(v.todo, others)
		class.values[f] = values
	}
	return class
}

// compared notes that a field was compared.
func (v *Survey) compared(f Field) {
	if v.within[f] == nil && len(v.without[f]) == 0 {
		v.order = append(v.order, f)
	}
}

// between narrows the class to the packets whose field is in an interval, or is not.
func (v *Survey) between(f Field, i Interval, inside bool) {
	switch {
	case f == fixed:
	case inside:
		v.among(f, Values{i}, true)
	default:
		v.compared(f)
		v.without[f] = append(v.without[f], i)
	}
}

// among narrows the class to the packets whose field is in a set, or is not.
func (v *Survey) among(f Field, set Values, inside bool) {
	switch {
	case f == fixed:
		return
	case !inside:
		if len(set) > 0 {
			v.compared(f)
			v.without[f] = append(v.without[f], set...)
		}
		return
	}
	v.compared(f)
	if v.within[f] == nil {
		v.within[f] = set
		return
	}
	v.within[f] = v.within[f].And(set)
}

// remember keeps where the fields come from that a chain may change.
func (v *Survey) remember() {
	v.before.dst = v.from.dst
	copy(v.before.mark, v.from.mark)
}
