package prove

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"

	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// sender is somebody who opens connections, and all that it may open.
type sender struct {
	actor    trace.Actor
	to       target
	box      ruleset.Box
	template ruleset.Packet
}

// target is where connections go to.
type target int

const (
	toOthers target = iota
	toPod           // its own addresses, and for its processes also loopback
	toLo            // further addresses that the routing puts on lo, such as ::6
	forged          // from outside, from a loopback address or to one that means whichever host it is used on
)

// universe is what packets of one family can be, with the rules of some pods.
type universe struct {
	family  ruleset.Family
	space   *ruleset.Space
	base    ruleset.Box    // all protocols and ports
	own     ruleset.Values // addresses of the pods, without those of lo
	onLo    ruleset.Values // that the routing puts there
	this    ruleset.Values // addresses that mean whichever host they are used on
	proxies []trace.Proxy
}

func newUniverse(family ruleset.Family, pods []*trace.Pod, states ...ruleset.State) *universe {
	u := &universe{family: family}
	var stacks []*ruleset.Stack
	var host ruleset.Host
	var own, onLo []netip.Prefix
	for _, pod := range pods {
		for i := range pod.Sides { // of both families, so that their spaces differ in nothing but addresses
			stacks = append(stacks, ruleset.NewStack(pod.Sides[i].Routing, pod.Sides[i].Sets...))
			host.Interfaces = append(host.Interfaces, pod.Sides[i].Host.Interfaces...)
			host.Uplink = cmp.Or(host.Uplink, pod.Sides[i].Host.Uplink)
		}
		if side := pod.Side(family); side != nil {
			host.Addresses = append(host.Addresses, side.Host.Addresses...)
			onLo = append(onLo, side.Routing.Addresses...)
		}
		if !slices.ContainsFunc(u.proxies, func(p trace.Proxy) bool {
			return p.UID == pod.Proxy.UID && p.GID == pod.Proxy.GID && p.Mark == pod.Proxy.Mark &&
				p.MarkAll == pod.Proxy.MarkAll && p.OwnMark == pod.Proxy.OwnMark
		}) {
			u.proxies = append(u.proxies, pod.Proxy)
		}
	}
	for _, addr := range host.Addresses {
		if family.Of(addr) {
			own = append(own, netip.PrefixFrom(addr, addr.BitLen()))
		}
	}
	u.space = ruleset.NewSpace(family, host, stacks...)
	u.own, u.onLo, u.this = ruleset.AddressValues(own...), ruleset.AddressValues(onLo...), u.space.ThisHostValues()
	values := map[ruleset.Field]ruleset.Values{ruleset.FieldState: u.space.StateValues(states...)}
	for _, f := range []ruleset.Field{ruleset.FieldProtocol, ruleset.FieldSrcPort, ruleset.FieldDstPort, ruleset.FieldHopPort} {
		values[f] = u.space.All(f)
	}
	u.base = u.space.Box(values)
	return u
}

// mapped are IPv4 addresses written as IPv6 ones.
var mapped = netip.MustParsePrefix("::ffff:0:0/96")

// senders returns who opens connections, and where to.
//
// No process of the app has a mark: one that can set it could also delete the rules.
// The proxy has none either, but on its connections to the app. Nobody else's packet
// has an address of the pod as its source: the kernel drops it. A process that
// connects to the unspecified address, or to an IPv4 address written as an IPv6 one,
// does not send a packet to it. Nobody can connect from such an address: no answer
// gets there.
func (u *universe) senders() []sender {
	everywhere := u.space.All(ruleset.FieldDst)
	others := everywhere.Without(u.own).Without(u.onLo).Without(u.this)
	pod := u.own.Or(u.space.LoopbackValues()).Without(ruleset.AddressValues(mapped))
	process := ruleset.Packet{Direction: ruleset.Out}
	app := u.base.With(ruleset.FieldUID, u.space.All(ruleset.FieldUID)).With(ruleset.FieldGID, u.space.All(ruleset.FieldGID))
	outside := u.base.With(ruleset.FieldInterface, u.space.From())
	honest := outside.With(ruleset.FieldSrc, others)
	arriving := ruleset.Packet{Direction: ruleset.In}
	all := []sender{
		{trace.App, toOthers, app.With(ruleset.FieldDst, others), process},
		{trace.Outside, toPod, honest.With(ruleset.FieldDst, u.own), arriving},
		{trace.App, toPod, app.With(ruleset.FieldDst, pod), process},
		{trace.Outside, toOthers, honest.With(ruleset.FieldDst, others), arriving},
		{trace.App, toLo, app.With(ruleset.FieldDst, u.onLo), process},
		{trace.Outside, toLo, honest.With(ruleset.FieldDst, u.onLo), arriving},
		{trace.Outside, forged, outside.With(ruleset.FieldSrc, u.space.LoopbackValues()).With(ruleset.FieldDst, everywhere), arriving},
		{trace.Outside, forged, honest.With(ruleset.FieldDst, u.this), arriving},
	}
	for _, proxy := range u.proxies {
		process.UID, process.GID, process.Mark = proxy.UID, proxy.GID, proxy.Mark
		all = append(all, sender{trace.TheProxy, toPod, u.base.With(ruleset.FieldDst, pod), process})
		if proxy.Mark != 0 && !proxy.MarkAll {
			process.Mark = 0
			all = append(all, sender{trace.TheProxy, toPod, u.base.With(ruleset.FieldDst, pod), process})
		}
		all = append(all, sender{trace.TheProxy, toOthers, u.base.With(ruleset.FieldDst, others), process})
		if process.Mark = proxy.OwnMark; proxy.OwnMark != 0 {
			all = append(all, sender{trace.TheProxy, toPod, u.base.With(ruleset.FieldDst, pod), process},
				sender{trace.TheProxy, toOthers, u.base.With(ruleset.FieldDst, others), process})
		}
	}
	return all
}

// classes divides the connections of a sender by their ways in some pods.
func (s sender) classes(pods ...*trace.Pod) iter.Seq[trace.Class] {
	return trace.Classes(s.actor, s.box, s.template, pods...)
}
