//go:build linux

package rules

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/test/netns"
)

// arena is the reference network with a server behind every port that a case
// is about: those of the proxy, and those that its packets are sent to.
type arena struct {
	lab      *netns.Lab
	own      []netip.Addr  // addresses of the pod beside those of eth0
	patience time.Duration // with packets that are not to be dropped; 0 for the time that a busy machine may need
}

// The servers, by the name that they answer with.
const (
	serverProxy   = "proxy"
	serverApp     = "app"
	serverOutside = "outside"
)

// endpoint is a port of one protocol in the pod or outside.
type endpoint struct {
	inPod    bool
	protocol string
	port     uint16
}

// newArena makes the network, has install put the rules in, and starts the
// servers.
func newArena(t *testing.T, spec interception.Spec, packets []Crossing, install func(pod *netns.NS)) *arena {
	t.Helper()
	a := &arena{lab: newLab(t, interfacesOf(packets)...)}
	// What kube-proxy sets on a node is so in every pod made there later: the
	// kernel then takes packets from outside to 127.0.0.0/8.
	if err := a.lab.Pod.Sysctl("net/ipv4/conf/all/route_localnet", "1"); err != nil {
		t.Fatal(err)
	}
	if a.forwards(packets) {
		if err := a.lab.Pod.Forward(); err != nil {
			t.Fatal(err)
		}
	}
	install(a.lab.Pod)
	proxyPorts := map[endpoint]bool{}
	for _, port := range []uint16{spec.OutboundPort, spec.InboundPort} {
		proxyPorts[endpoint{true, "tcp", port}] = true
	}
	for _, x := range packets {
		if x.Want.Port != 0 {
			proxyPorts[endpoint{true, x.Packet.Protocol, x.Want.Port}] = true
		}
	}
	for e := range proxyPorts {
		listenBoth(t, a.lab.Pod, e.protocol, e.port, netns.ListenOptions{
			Name: serverProxy, Identity: proxyOf(spec),
			Transparent: spec.System == interception.SystemTProxy && e.port == spec.InboundPort,
		})
	}
	started := proxyPorts
	for _, x := range packets {
		e := endpoint{a.inPod(x.Packet.Dst), x.Packet.Protocol, x.Packet.DstPort}
		if started[e] {
			continue
		}
		started[e] = true
		if e.inPod {
			listenBoth(t, a.lab.Pod, e.protocol, e.port, netns.ListenOptions{Name: serverApp, Identity: app})
		} else {
			listenBoth(t, a.lab.Outside, e.protocol, e.port, netns.ListenOptions{Name: serverOutside, Transparent: true})
		}
	}
	return a
}

// forwards reports whether packets come in for other hosts, as those of
// virtual machines do: a pod that has any is a router.
func (a *arena) forwards(packets []Crossing) bool {
	return slices.ContainsFunc(packets, func(x Crossing) bool {
		return x.Packet.Direction == ruleset.In && !a.inPod(x.Packet.Dst)
	})
}

// interfacesOf returns the interfaces beside eth0 and lo that packets name.
func interfacesOf(packets []Crossing) []string {
	var names []string
	for _, x := range packets {
		name := x.Packet.Interface
		if name != "" && name != "eth0" && name != "lo" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// proxyOf is the identity of a spec's proxy, the first of each list. Where a
// list is empty it is an ordinary user's.
func proxyOf(spec interception.Spec) netns.Identity {
	id := app
	if len(spec.ProxyUIDs) > 0 {
		id.UID = spec.ProxyUIDs[0]
	}
	if len(spec.ProxyGIDs) > 0 {
		id.GID = spec.ProxyGIDs[0]
	}
	return id
}

func (a *arena) inPod(addr netip.Addr) bool {
	return ruleset.ThisHost(addr) || slices.Contains(Pod.Addresses, addr) || slices.Contains(a.own, addr)
}

// dropTime is how long an answer to a packet that must be dropped is waited
// for. A rejection may show with the second SYN only, which goes out after a
// second.
const dropTime = 1500 * time.Millisecond

// cross makes a packet the first of a real connection, and compares where that
// ended with what is wanted.
func (a *arena) cross(ctx context.Context, x Crossing) error {
	p := x.Packet
	if p.ConnMark != 0 || p.State != ruleset.New || x.Want.Fate == ruleset.Local || x.Want.Fate == ruleset.Unknown {
		return fmt.Errorf("%q is not about the first packet of a connection, and belongs into section walk", x.Text)
	}
	patience := a.patience
	if x.Want.Fate == ruleset.Dropped {
		patience = dropTime
	}
	reply, err := a.send(ctx, p, patience)
	got, ok := a.fate(p, reply, err)
	if !ok {
		return fmt.Errorf("%q ended as no packet should: %+v, %w", x.Text, reply, err)
	}
	if !slices.Contains(got, x.Want) {
		return fmt.Errorf("%q, but in the kernel: %v (%+v, error: %w)", x.Text, got, reply, err)
	}
	return nil
}

// send makes a packet the first of a real connection, and waits for an answer.
// Addresses of this host are on the wire only: a kernel does not send them to
// another one.
func (a *arena) send(ctx context.Context, p ruleset.Packet, patience time.Duration) (netns.Reply, error) {
	to, ns, o := p.Dst, a.lab.Pod, netns.DialOptions{
		Identity: netns.Identity{UID: p.UID, GID: p.GID}, Mark: p.Mark, Source: p.Src, Timeout: patience,
	}
	if p.Direction == ruleset.Out {
		o.Device = p.Interface
	} else {
		ns, o.Identity, o.Mark = a.lab.Outside, netns.Identity{}, a.lab.Mark(p.Interface)
		for _, addr := range []*netip.Addr{&to, &o.Source} {
			if !ruleset.ThisHost(*addr) {
				continue
			}
			var err error
			if *addr, err = a.lab.Alias(*addr); err != nil {
				return netns.Reply{}, err
			}
		}
	}
	return ns.Ask(ctx, p.Protocol, netip.AddrPortFrom(to, p.DstPort), o)
}

// fate tells from a connection's end what became of it; ok is false when it
// makes no sense. There are two answers for a packet to a port of the proxy
// that got there: a redirection from an address to itself changes nothing that
// anyone could see.
func (a *arena) fate(p ruleset.Packet, reply netns.Reply, err error) (fates []ruleset.Outcome, ok bool) {
	switch {
	case netns.IsTimeout(err), netns.IsUnreachable(err):
		return []ruleset.Outcome{{Fate: ruleset.Dropped}}, true
	case netns.IsRefused(err):
		return []ruleset.Outcome{{Fate: ruleset.Rejected}}, true
	case err != nil:
		return nil, false
	}
	dst := netip.AddrPortFrom(p.Dst, p.DstPort)
	arrived := reply.Local == dst && reply.Bound == dst.Port()
	if arrived && reply.Server != serverProxy {
		right := (reply.Server == serverApp) == a.inPod(p.Dst)
		return []ruleset.Outcome{{Fate: ruleset.Direct}}, right
	}
	if reply.Server != serverProxy {
		return nil, false
	}
	redirected := ruleset.Outcome{Fate: ruleset.Redirected, Port: reply.Bound}
	switch {
	case arrived:
		return []ruleset.Outcome{{Fate: ruleset.Direct}, redirected}, true
	case reply.Local == dst:
		return []ruleset.Outcome{{Fate: ruleset.TProxied, Port: reply.Bound}}, true
	case reply.Original == dst || p.Protocol == "udp": // the kernel tells it of tcp only
		return []ruleset.Outcome{redirected}, true
	}
	return nil, false
}
