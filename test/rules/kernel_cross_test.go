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

// arena is the reference network with a server on every port of a case: those of the proxy, and the
// destinations of its packets.
type arena struct {
	lab      *netns.Lab
	own      []netip.Addr  // addresses of the pod besides those of eth0
	patience time.Duration // for packets that are not to be dropped; 0 for what a busy machine may need
}

// The servers, by the names in their answers.
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

// newArena makes the network, installs the rules, and starts the servers.
func newArena(t *testing.T, spec interception.Spec, packets []Crossing, install func(pod *netns.NS)) *arena {
	t.Helper()
	arena := &arena{lab: newLab(t, interfacesOf(packets)...)}
	// kube-proxy sets this on a node, and every pod made there later inherits it: then the kernel
	// takes packets from outside to 127.0.0.0/8.
	if err := arena.lab.Pod.Sysctl("net/ipv4/conf/all/route_localnet", "1"); err != nil {
		t.Fatal(err)
	}
	if arena.forwards(packets) {
		if err := arena.lab.Pod.Forward(); err != nil {
			t.Fatal(err)
		}
	}
	install(arena.lab.Pod)
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
		listenBoth(t, arena.lab.Pod, e.protocol, e.port, netns.ListenOptions{
			Name: serverProxy, Identity: proxyOf(spec),
			Transparent: spec.System == interception.SystemTProxy && (e.port == spec.InboundPort || spec.NoConntrack),
		})
	}
	started := proxyPorts
	for _, x := range packets {
		e := endpoint{arena.inPod(x.Packet.Dst), x.Packet.Protocol, x.Packet.DstPort}
		if started[e] {
			continue
		}
		started[e] = true
		if e.inPod {
			listenBoth(t, arena.lab.Pod, e.protocol, e.port, netns.ListenOptions{Name: serverApp, Identity: app})
		} else {
			listenBoth(t, arena.lab.Outside, e.protocol, e.port, netns.ListenOptions{Name: serverOutside, Transparent: true})
		}
	}
	return arena
}

// forwards reports whether packets come in for other hosts, as those of virtual machines do: such a
// pod is a router.
func (a *arena) forwards(packets []Crossing) bool {
	return slices.ContainsFunc(packets, func(x Crossing) bool {
		return x.Packet.Direction == ruleset.In && !a.inPod(x.Packet.Dst)
	})
}

// interfacesOf returns the interfaces that packets name, without eth0 and lo.
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

// proxyOf returns the identity of a spec's proxy, the first of each list, or an ordinary user's if
// a list is empty.
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

// dropTime is how long an answer to a packet that must be dropped is awaited. A rejection may show
// only with the second SYN, after a second.
const dropTime = 1500 * time.Millisecond

// cross makes a packet the first of a real connection, and compares the connection's end with the
// wanted one.
func (a *arena) cross(ctx context.Context, crossing Crossing) error {
	p := crossing.Packet
	if p.ConnMark != 0 || p.State != ruleset.New || crossing.Want.Fate == ruleset.Local || crossing.Want.Fate == ruleset.Unknown {
		return fmt.Errorf("%q is not about the first packet of a connection, and belongs into section walk", crossing.Text)
	}
	patience := a.patience
	if crossing.Want.Fate == ruleset.Dropped {
		patience = dropTime
	}
	reply, err := a.send(ctx, p, patience)
	got, ok := a.fate(p, reply, err)
	if !ok {
		return fmt.Errorf("%q ended as no packet should: %+v, %w", crossing.Text, reply, err)
	}
	if !slices.Contains(got, crossing.Want) {
		return fmt.Errorf("%q, but in the kernel: %v (%+v, error: %w)", crossing.Text, got, reply, err)
	}
	return nil
}

// send makes a packet the first of a real connection, and waits for an answer. Addresses of this
// host exist on the wire only: a kernel sends them to nobody else.
func (a *arena) send(ctx context.Context, packet ruleset.Packet, patience time.Duration) (netns.Reply, error) {
	to, ns, options := packet.Dst, a.lab.Pod, netns.DialOptions{
		Identity: netns.Identity{UID: packet.UID, GID: packet.GID}, Mark: packet.Mark, Source: packet.Src, Timeout: patience,
	}
	if packet.Direction == ruleset.Out {
		options.Device = packet.Interface
	} else {
		ns, options.Identity, options.Mark = a.lab.Outside, netns.Identity{}, a.lab.Mark(packet.Interface)
		for _, addr := range []*netip.Addr{&to, &options.Source} {
			if !ruleset.ThisHost(*addr) {
				continue
			}
			var err error
			if *addr, err = a.lab.Alias(*addr); err != nil {
				return netns.Reply{}, err
			}
		}
	}
	return ns.Ask(ctx, packet.Protocol, netip.AddrPortFrom(to, packet.DstPort), options)
}

// fate derives a packet's fate from its connection's end; it returns false if that makes no sense.
// A packet to a port of the proxy that got there may have two fates: a redirection from an address
// to itself changes nothing visible.
func (a *arena) fate(packet ruleset.Packet, reply netns.Reply, err error) (fates []ruleset.Outcome, ok bool) {
	switch {
	case netns.IsTimeout(err), netns.IsUnreachable(err):
		return []ruleset.Outcome{{Fate: ruleset.Dropped}}, true
	case netns.IsRefused(err):
		return []ruleset.Outcome{{Fate: ruleset.Rejected}}, true
	case err != nil:
		return nil, false
	}
	destination := netip.AddrPortFrom(packet.Dst, packet.DstPort)
	arrived := reply.Local == destination && reply.Bound == destination.Port()
	if arrived && reply.Server != serverProxy {
		right := (reply.Server == serverApp) == a.inPod(packet.Dst)
		return []ruleset.Outcome{{Fate: ruleset.Direct}}, right
	}
	if reply.Server != serverProxy {
		return nil, false
	}
	redirected := ruleset.Outcome{Fate: ruleset.Redirected, Port: reply.Bound}
	switch {
	case arrived:
		return []ruleset.Outcome{{Fate: ruleset.Direct}, redirected}, true
	case reply.Local == destination:
		return []ruleset.Outcome{{Fate: ruleset.TProxied, Port: reply.Bound}}, true
	case reply.Original == destination || packet.Protocol == "udp": // the kernel reports it for tcp only
		return []ruleset.Outcome{redirected}, true
	}
	return nil, false
}
