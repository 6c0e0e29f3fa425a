package trace

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Answer is what is told of one pod: one journey that was asked for, or all paths
// that matter.
type Answer struct {
	Pod   Pod
	Paths []Path
}

// Path is a journey with a name. Paths of exceptions stand for all of their kind.
type Path struct {
	Name   string // "in", "out", "exception"; "" for a journey that was asked for
	About  string // whose connection, to what
	Family ruleset.Family
	// Like are the ports and destinations of the exceptions that this one stands
	// for.
	Like    []string
	Journey Journey
}

// Ports of the questions that nobody asked.
const (
	appPort  = 8080
	webPort  = 80
	dnsPort  = 53
	userID   = 1000 // of the app: an ordinary user
	maxLike  = 5    // exceptions that one line names
	maxTried = 2000 // ports, and destinations, of the rules that are tried
)

// Paths returns the paths that matter, of each family that something is known of:
// ten that every pod has, and the exceptions that the rules make.
func Paths(pod Pod) []Path {
	var all []Path
	for i := range pod.Sides {
		side := &pod.Sides[i]
		if side.Address().IsValid() {
			ports := namedPorts(side)
			asks := asker{pod: pod, side: side, appPort: unnamed(ports, appPort), webPort: unnamed(ports, webPort)}
			all = append(all, asks.usual()...)
			all = append(all, asks.exceptions()...)
		}
	}
	return all
}

// asker asks for the journeys of one side.
type asker struct {
	pod              Pod
	side             *Side
	appPort, webPort uint16 // that no rule names
}

// Examples are the addresses of other hosts in the paths that nobody asked for.
type Examples struct{ Client, Node, Server, Service, Resolver netip.Addr }

// ExamplesOf returns addresses for a side that are not the pod's own. Those of hosts
// are, as far as there are some, none that its rules name; those of Services are of
// the range that kubeadm gives them.
func ExamplesOf(side *Side) Examples {
	parse := netip.MustParseAddr
	examples := Examples{parse("10.0.0.9"), parse("10.0.0.254"), parse("192.0.2.1"), parse("10.96.0.1"), parse("10.96.0.10")}
	others := []netip.Addr{parse("198.51.100.1"), parse("203.0.113.1"), parse("8.0.0.1"), parse("172.31.255.1")}
	if side.Family == ruleset.IPv6 {
		examples = Examples{parse("fd00::9"), parse("fd00::fe"), parse("2001:db8::1"), parse("fd00:96::1"), parse("fd00:96::a")}
		others = []netip.Addr{parse("2a00::1"), parse("2600::1"), parse("fd77::1")}
	}
	named := namedPrefixes(side)
	free := func(addr netip.Addr) bool {
		return !side.local(addr) && !slices.ContainsFunc(named, func(p netip.Prefix) bool { return p.Contains(addr) })
	}
	for _, example := range []*netip.Addr{&examples.Client, &examples.Node, &examples.Server} {
		if i := slices.IndexFunc(others, free); !free(*example) && i >= 0 {
			*example = others[i]
		}
	}
	return examples
}

func (a asker) packet(protocol string, to netip.Addr, port uint16) ruleset.Packet {
	return ruleset.Packet{
		Direction: ruleset.Out, Family: a.side.Family, Protocol: protocol, Dst: to, DstPort: port,
		UID: userID, GID: userID, State: ruleset.New,
	}
}

func (a asker) fromApp(protocol string, to netip.Addr, port uint16) Connection {
	return Connection{From: App, Packet: a.packet(protocol, to, port)}
}

func (a asker) fromProxy(to netip.Addr, port uint16) Connection {
	return FromProxy(a.pod.Proxy, a.packet("tcp", to, port))
}

// FromProxy returns the connection as the proxy opens it for itself.
func FromProxy(proxy Proxy, packet ruleset.Packet) Connection {
	packet.UID, packet.GID = proxy.UID, proxy.GID
	packet.Mark = proxy.ownMark()
	return Connection{From: TheProxy, Packet: packet}
}

func (a asker) fromOutside(protocol string, from netip.Addr, port uint16) Connection {
	packet := a.packet(protocol, a.side.Address(), port)
	packet.Direction, packet.Src, packet.Interface = ruleset.In, from, a.side.Host.Uplink
	return Connection{From: Outside, Packet: packet}
}

// usual returns the paths that every pod has.
func (a asker) usual() []Path {
	to, own := ExamplesOf(a.side), a.side.Address()
	var all []Path
	add := func(name, about string, c Connection) {
		all = append(all, Path{Name: name, About: about, Family: a.side.Family, Journey: Walk(a.pod, c)})
	}
	add("in", "a client calls the pod", a.fromOutside("tcp", to.Client, a.appPort))
	add("probe", "kubelet probes the app", a.fromOutside("tcp", to.Node, a.appPort))
	add("out", "the app calls a server", a.fromApp("tcp", to.Server, a.webPort))
	add("service", "the app calls a Service", a.fromApp("tcp", to.Service, a.webPort))
	add("self", "the app calls its own pod", a.fromApp("tcp", own, a.appPort))
	add("loopback", "the app calls localhost", a.fromApp("tcp", loopback(a.side.Family), a.appPort))
	add("dns", "the app resolves a name", a.fromApp("udp", to.Resolver, dnsPort))
	add("dns-tcp", "the app resolves a long one", a.fromApp("tcp", to.Resolver, dnsPort))
	add("proxy-out", "the proxy calls a server", a.fromProxy(to.Server, a.webPort))
	add("proxy-self", "the proxy calls its own pod", a.fromProxy(own, a.appPort))
	return all
}

// exceptions returns the paths of connections that go another way than those of
// their kind, for their port or destination. What goes the same way for the same
// reason is one path.
func (a asker) exceptions() []Path {
	to := ExamplesOf(a.side)
	var all []Path
	try := func(about, like string, usual Journey, c Connection) {
		j := Walk(a.pod, c)
		if j.way() == usual.way() {
			return
		}
		for i := range all {
			if all[i].About == about && all[i].Journey.way() == j.way() && all[i].Journey.because() == j.because() {
				all[i].Like = append(all[i].Like, like)
				return
			}
		}
		all = append(all, Path{Name: "exception", About: about, Family: a.side.Family, Like: []string{like}, Journey: j})
	}
	ports, prefixes := namedPorts(a.side), namedPrefixes(a.side)
	untried := max(0, len(ports)-maxTried) + max(0, len(prefixes)-maxTried)
	ports, prefixes = ports[:min(len(ports), maxTried)], prefixes[:min(len(prefixes), maxTried)]
	for _, protocol := range []string{"tcp", "udp"} {
		usual := Walk(a.pod, a.fromOutside(protocol, to.Client, a.appPort))
		for _, r := range ports {
			try("a client calls the pod by "+protocol, r.String(), usual, a.fromOutside(protocol, to.Client, r.First))
		}
		usual = Walk(a.pod, a.fromApp(protocol, to.Server, a.webPort))
		for _, r := range ports {
			if r.First != dnsPort || r.Last != dnsPort { // dns has a path of its own
				try("the app calls a server by "+protocol, r.String(), usual, a.fromApp(protocol, to.Server, r.First))
			}
		}
		for _, p := range prefixes {
			if addr := p.Addr(); !a.side.local(addr) && !ruleset.ThisHost(addr) {
				try("the app calls a server by "+protocol, p.String(), usual, a.fromApp(protocol, addr, a.webPort))
			}
		}
	}
	if untried > 0 {
		all = append(all, Path{
			Name: "not tried", About: fmt.Sprintf("%d more ports and destinations of the rules", untried), Family: a.side.Family,
			Journey: Journey{End: End{Kind: EndUnknown, Text: "there are too many"}},
		})
	}
	return all
}

// way says in a few words which way the journey goes.
func (j Journey) way() string {
	var words []string
	for i := range j.Legs {
		if leg := &j.Legs[i]; !leg.Answer {
			words = append(words, leg.Path.Outcome.String())
		}
	}
	return strings.Join(append(words, string(j.End.Kind)), ", ")
}

// because is the reason of the first leg, or of a bad end.
func (j Journey) because() string {
	if j.End.Kind != EndApp && j.End.Kind != EndOutside || len(j.Legs) == 0 {
		return j.End.Text
	}
	return j.Legs[0].why()
}

// namedPorts returns the destination ports that rules of the side name.
func namedPorts(side *Side) []interception.PortRange {
	known := map[interception.PortRange]bool{}
	eachMatch(side, func(m ruleset.Match) {
		if ports, ok := m.(ruleset.Ports); ok && !ports.Source {
			for _, r := range ports.Ranges {
				known[r] = true
			}
		}
	})
	return slices.SortedFunc(maps.Keys(known), func(a, b interception.PortRange) int {
		return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
	})
}

// unnamed returns the first port from one on that no rule names, or that one.
func unnamed(named []interception.PortRange, port uint16) uint16 {
	for free := port; free >= port; free++ {
		if !slices.ContainsFunc(named, func(r interception.PortRange) bool { return r.Contains(free) }) {
			return free
		}
	}
	return port
}

// namedPrefixes returns the destinations that rules of the side name.
func namedPrefixes(side *Side) []netip.Prefix {
	known := map[netip.Prefix]bool{}
	eachMatch(side, func(m ruleset.Match) {
		if to, ok := m.(ruleset.Destination); ok && to.Prefix.Bits() > 0 {
			known[to.Prefix] = true
		}
	})
	return slices.SortedFunc(maps.Keys(known), netip.Prefix.Compare)
}

func eachMatch(side *Side, do func(ruleset.Match)) {
	for _, set := range side.Sets {
		for step := range set.Rules() {
			for _, m := range step.Rule.Matches {
				do(m)
			}
		}
	}
}

// like names the exceptions that a path stands for.
func (p Path) like() string {
	if more := len(p.Like) - maxLike; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(p.Like[:maxLike], ", "), more)
	}
	return strings.Join(p.Like, ", ")
}

// Asked returns the connection of a question: who opens it, and its packet. Who is
// App, TheProxy, or of no meaning if the packet has a source. Without either, a
// connection to an address of the pod is that of another host, and any other one
// the app's.
func Asked(pod Pod, who Actor, packet ruleset.Packet) Connection {
	side := pod.Side(packet.Family)
	if side == nil {
		return Connection{From: App, Packet: packet}
	}
	packet.Direction = ruleset.Out
	own := side.local(packet.Dst) && !packet.Dst.IsLoopback()
	switch {
	case who == TheProxy:
		return FromProxy(pod.Proxy, packet)
	case who == App, packet.Src.IsValid() && side.local(packet.Src), !packet.Src.IsValid() && !own:
		return Connection{From: App, Packet: packet}
	case !packet.Src.IsValid():
		packet.Src = ExamplesOf(side).Client
	}
	packet.Direction, packet.Interface = ruleset.In, side.Host.Uplink
	return Connection{From: Outside, Packet: packet}
}
