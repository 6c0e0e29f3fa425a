package bench

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/test/rules"
)

// The hosts of the connections that rules are counted for.
var (
	pod     = rules.Pod.Addresses[0]
	client  = rules.Client[ruleset.IPv4]
	server  = netip.MustParseAddr("203.0.113.5") // outside
	loop    = netip.MustParseAddr("127.0.0.1")
	hopFrom = netip.MustParseAddr("127.0.0.6") // of the proxy's hop to the app, in REDIRECT
)

// Ports of the connections: the app's, the server's, and one that was drawn.
const (
	appPort    = 8080
	serverPort = 80
	drawnPort  = 40000
)

// proxyID is the uid and gid of the proxy in the listings.
const proxyID = 1337

// flow is one direction of one of the four connections that a client's and the
// app's own connection are made of.
type flow struct {
	name  string
	opens bool // it has a first packet, the SYN
	// walks are what a packet of it goes through. Trace does not rewrite the
	// later packets of a redirected connection, so that their way in over lo is
	// a walk of its own.
	first, later []ruleset.Packet
}

// actors are what differs between the systems: who the proxy is, and where
// from and how marked its hop to the app is.
type actors struct {
	uid, gid, mark   uint32
	hopMark, hopConn uint32 // of the hop's packets, and of its conntrack entry
	hopSrc, hopDst   netip.Addr
}

func actorsOf(spec interception.Spec) actors {
	a := actors{uid: proxyID, gid: proxyID, hopSrc: hopFrom, hopDst: pod}
	switch spec.System {
	case interception.SystemTProxy:
		a.uid = 0 // only root in a container has CAP_NET_ADMIN
		a.hopSrc, a.hopMark, a.hopConn = client, spec.Mark, spec.Mark
	case interception.SystemAmbient:
		a.uid, a.gid, a.mark = 0, 0, spec.Mark
		a.hopSrc, a.hopMark, a.hopConn = client, spec.Mark, 0x111
	case interception.SystemLegacy:
		a.hopSrc, a.hopDst = loop, loop
	}
	return a
}

// flows are those of a client's connection to the app, and of one that the
// app opens.
func flows(a actors, outboundPort uint16) []flow {
	in := func(src, dst netip.Addr, port uint16, device string) ruleset.Packet {
		return ruleset.Packet{Direction: ruleset.In, Src: src, Dst: dst, DstPort: port, Interface: device}
	}
	out := func(uid, gid, mark uint32, src, dst netip.Addr, port uint16) ruleset.Packet {
		return ruleset.Packet{Direction: ruleset.Out, UID: uid, GID: gid, Mark: mark, Src: src, Dst: dst, DstPort: port}
	}
	app := func(src, dst netip.Addr, port uint16) ruleset.Packet { return out(1000, 1000, 0, src, dst, port) }
	hop, answer := out(a.uid, a.gid, a.hopMark, a.hopSrc, a.hopDst, appPort), app(a.hopDst, a.hopSrc, drawnPort)
	laterHop := hop
	laterHop.ConnMark, answer.ConnMark = a.hopConn, a.hopConn
	fromClient, toServer := in(client, pod, appPort, "eth0"), app(pod, server, serverPort)
	proxyToServer := out(a.uid, a.gid, a.mark, pod, server, serverPort)
	one := func(p ruleset.Packet) []ruleset.Packet { return []ruleset.Packet{p} }
	return []flow{
		{"client to proxy", true, one(fromClient), one(fromClient)},
		{"proxy to app", true, one(hop), one(laterHop)},
		{"app to proxy, its answer", false, nil, one(answer)},
		{"proxy to client, the answer", false, nil, one(out(a.uid, a.gid, 0, pod, client, drawnPort))},
		{"app to proxy", true, one(toServer), []ruleset.Packet{toServer, in(pod, loop, outboundPort, "lo")}},
		{"proxy to server", true, one(proxyToServer), one(proxyToServer)},
		{"server to proxy, its answer", false, nil, one(in(server, pod, drawnPort, "eth0"))},
		{"proxy to app, the answer", false, nil, one(out(a.uid, a.gid, 0, loop, pod, drawnPort))},
	}
}

// inboundFlows is how many of the flows belong to the client's connection.
const inboundFlows = 4

// Met is how many rules the packets of one flow meet: those that they are held
// against, in all tables and chains that they pass.
type Met struct {
	Flow         string
	Opens        bool // First counts
	First, Later int
}

// CountMet counts the rules of a set, of IPv4, that is of the spec's system.
func CountMet(spec interception.Spec, rs ruleset.RuleSet) []Met {
	var all []Met
	for _, f := range flows(actorsOf(spec), spec.OutboundPort) {
		all = append(all, Met{
			Flow: f.name, Opens: f.opens,
			First: met(rs, f.first, ruleset.New), Later: met(rs, f.later, ruleset.Established),
		})
	}
	return all
}

func met(rs ruleset.RuleSet, walks []ruleset.Packet, state ruleset.State) int {
	sum := 0
	for _, p := range walks {
		p.Family, p.Protocol, p.State = ruleset.IPv4, "tcp", state
		sum += ruleset.Trace(rs, rules.Pod, p).RulesMet
	}
	return sum
}

// Compared is the counts of our rules of a system and of its listing.
type Compared struct {
	System        string
	Ours, Listing []Met
}

// CompareMet counts for every listing in a folder.
func CompareMet(listings string) ([]Compared, error) {
	var all []Compared
	for _, l := range rules.Listings {
		spec, err := l.Spec()
		if err != nil {
			return nil, err
		}
		theirs, err := l.Read(listings, ruleset.IPv4)
		if err != nil {
			return nil, err
		}
		ours := CountMet(spec, ruleset.Build(spec, ruleset.IPv4))
		all = append(all, Compared{l.Name, ours, CountMet(spec, theirs)})
	}
	return all, nil
}

// MetTable prints counts as a Markdown table: ours, and the listing's behind a
// stroke.
func MetTable(all []Compared) string {
	var b strings.Builder
	b.WriteString("| packet |")
	for _, c := range all {
		b.WriteString(" " + c.System + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("--:|", len(all)) + "\n")
	row := func(name string, count func([]Met) int) {
		b.WriteString("| " + name + " |")
		for _, c := range all {
			fmt.Fprintf(&b, " %d / %d |", count(c.Ours), count(c.Listing))
		}
		b.WriteString("\n")
	}
	for i, m := range all[0].Ours {
		if m.Opens {
			row(m.Flow+": first", func(counts []Met) int { return counts[i].First })
		}
		row(m.Flow+": later", func(counts []Met) int { return counts[i].Later })
	}
	for _, half := range []struct {
		name     string
		from, to int
	}{{"client's connection", 0, inboundFlows}, {"app's connection", inboundFlows, len(all[0].Ours)}} {
		row("**"+half.name+", to open it**", sum(half.from, half.to, func(m Met) int { return m.First }))
		row("**"+half.name+", a packet each way**", sum(half.from, half.to, func(m Met) int { return m.Later }))
	}
	return b.String()
}

func sum(from, to int, of func(Met) int) func([]Met) int {
	return func(counts []Met) int {
		total := 0
		for _, m := range counts[from:to] {
			total += of(m)
		}
		return total
	}
}
