//go:build linux

package rules

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// kind is a row in the table of connections: who opens it to where, and which way it has to go.
type kind struct {
	name    string
	from    netns.Identity // of a process in the pod, unless outside or proxy is set
	outside bool           // opened from outside
	proxy   bool           // opened by the proxy, whatever its identity
	network string
	to      place
	port    uint16
	way     string // direct, inbound, outbound
}

type place int

const (
	toOutside place = iota
	toPod
	toLoopback
)

const direct = "direct"

var app = netns.Identity{UID: 1000, GID: 1000}

var kinds = []kind{
	{name: "outside to the app", outside: true, network: "tcp", to: toPod, port: 8080, way: inbound},
	{name: "outside to another port of the app", outside: true, network: "tcp", to: toPod, port: 9090, way: inbound},
	{name: "outside to ssh", outside: true, network: "tcp", to: toPod, port: 22, way: direct},
	{name: "outside to status", outside: true, network: "tcp", to: toPod, port: 15020, way: direct},
	{name: "outside to health", outside: true, network: "tcp", to: toPod, port: 15021, way: direct},
	{name: "outside to metrics", outside: true, network: "tcp", to: toPod, port: 15090, way: direct},
	{name: "app to outside", from: app, network: "tcp", to: toOutside, port: 80, way: outbound},
	{name: "app to another port outside", from: app, network: "tcp", to: toOutside, port: 8443, way: outbound},
	{name: "root to outside", from: netns.Identity{}, network: "tcp", to: toOutside, port: 80, way: outbound},
	{name: "uid 1337 to outside", from: netns.Identity{UID: 1337, GID: 1000}, network: "tcp", to: toOutside, port: 80, way: direct},
	{name: "gid 1337 to outside", from: netns.Identity{UID: 1000, GID: 1337}, network: "tcp", to: toOutside, port: 80, way: direct},
	{name: "app to loopback", from: app, network: "tcp", to: toLoopback, port: 8080, way: direct},
	{name: "app to its own pod", from: app, network: "tcp", to: toPod, port: 8080, way: direct},
	{name: "proxy to its own pod", proxy: true, network: "tcp", to: toPod, port: 8080, way: inbound},
	{name: "proxy to loopback", proxy: true, network: "tcp", to: toLoopback, port: 8080, way: direct},
	{name: "app to udp 53", from: app, network: "udp", to: toOutside, port: 53, way: direct},
	{name: "app to tcp 53", from: app, network: "tcp", to: toOutside, port: 53, way: outbound},
	{name: "proxy to udp 53", proxy: true, network: "udp", to: toOutside, port: 53, way: direct},
}

// identities are the proxies that each system has to support.
var identities = map[interception.System]map[string]proxyIdentity{
	interception.SystemRedirect: {
		"uid1337-gid1337": {Identity: netns.Identity{UID: 1337, GID: 1337}},
		"uid1337-gid1000": {Identity: netns.Identity{UID: 1337, GID: 1000}},
		"uid0-gid1337":    {Identity: netns.Identity{UID: 0, GID: 1337}},

		"uid1337-gid1337-bound": {Identity: netns.Identity{UID: 1337, GID: 1337}, bound: true},
	},
	interception.SystemTProxy: {
		"uid1337-gid1337":          {Identity: netns.Identity{UID: 1337, GID: 1337}},
		"uid0-gid1337":             {Identity: netns.Identity{UID: 0, GID: 1337}},
		"uid1337-gid1337-unmarked": {Identity: netns.Identity{UID: 1337, GID: 1337}, unmarked: true},
		"uid0-gid1337-unmarked":    {Identity: netns.Identity{UID: 0, GID: 1337}, unmarked: true},
		"uid0-gid1337-bound":       {Identity: netns.Identity{UID: 0, GID: 1337}, bound: true},
	},
}

// traffic is a pod with rules, a proxy and an app, and the world outside.
type traffic struct {
	lab      *netns.Lab
	proxy    *proxy
	identity proxyIdentity
	system   interception.System
}

// newTraffic makes one. install changes the pod's namespace before any process listens, as in a
// pod.
func newTraffic(t *testing.T, spec interception.Spec, id proxyIdentity, install func(t *testing.T, pod *netns.NS)) *traffic {
	t.Helper()
	lab := newLab(t)
	install(t, lab.Pod)
	result := &traffic{lab: lab, identity: id, system: spec.System, proxy: startProxy(t, lab.Pod, spec, id)}
	ports := map[place]map[string]map[uint16]bool{toPod: {}, toOutside: {}}
	for _, k := range kinds {
		at := k.to
		if at == toLoopback {
			at = toPod
		}
		if ports[at][k.network] == nil {
			ports[at][k.network] = map[uint16]bool{}
		}
		ports[at][k.network][k.port] = true
	}
	for network, set := range ports[toPod] {
		for port := range set {
			listenBoth(t, lab.Pod, network, port, netns.ListenOptions{Name: "app", Identity: app})
		}
	}
	for network, set := range ports[toOutside] {
		for port := range set {
			listenBoth(t, lab.Outside, network, port, netns.ListenOptions{Name: "outside", Transparent: true})
		}
	}
	return result
}

// run opens every kind of connection over both families.
func (tr *traffic) run(t *testing.T) {
	for _, k := range kinds {
		for _, family := range []string{"v4", "v6"} {
			t.Run(fmt.Sprintf("%s %s", k.name, family), func(t *testing.T) {
				tr.proxy.take()
				if k.name == "proxy to its own pod" && tr.identity.unmarked {
					tr.loops(t, k, family)
					return
				}
				if err := tr.check(t, k, family); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// loops reports the one connection that cannot work: a proxy's connection from the pod's own
// address to that address, without a mark, looks exactly like the call that it came from. Such a
// proxy has to call itself over loopback. The test documents that, and checks everything else.
func (tr *traffic) loops(t *testing.T, k kind, family string) {
	_, err := tr.open(t, k, family)
	seen := tr.proxy.take()
	if err == nil || len(seen) < maxCrossings {
		t.Errorf("got %v after %d crossings, want a loop that the proxy ends", err, len(seen))
	}
}

// open makes the connection and returns its server's reply.
func (tr *traffic) open(t *testing.T, kind kind, family string) (netns.Reply, error) {
	options := netns.DialOptions{Identity: kind.from}
	ns := tr.lab.Pod
	switch {
	case kind.proxy:
		options = tr.proxy.ownOptions()
	case kind.outside:
		ns, options.Source = tr.lab.Outside, pick(family, netns.OutsideIPv4, netns.OutsideIPv6)
	}
	if kind.network == "udp" {
		return ns.Ask(t.Context(), kind.network, kind.destination(family), options)
	}
	conn, err := ns.Dial(t.Context(), kind.network, kind.destination(family), options)
	if err != nil {
		return netns.Reply{}, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(exchangeTime)); err != nil {
		return netns.Reply{}, err
	}
	reply, err := netns.ReadReply(conn)
	if err != nil {
		return reply, err
	}
	return reply, exchange(conn)
}

// exchangeBytes makes many packets each way: rules of the mangle table meet every packet of a
// connection, not just its first.
const exchangeBytes = 256 << 10

// exchangeTime is how long a busy machine may take for it.
const exchangeTime = 10 * time.Second

// exchange sends data to a server that echoes it.
func exchange(conn net.Conn) error {
	sent, got := bytes.Repeat([]byte("0123456789abcdef"), exchangeBytes/16), make([]byte, exchangeBytes)
	done := make(chan error, 1)
	go func() { _, err := conn.Write(sent); done <- err }()
	if _, err := io.ReadFull(conn, got); err != nil {
		return fmt.Errorf("reading back %d bytes: %w", exchangeBytes, err)
	}
	if !bytes.Equal(sent, got) {
		return fmt.Errorf("%d bytes came back altered", exchangeBytes)
	}
	return <-done
}

func (k kind) destination(family string) netip.AddrPort {
	switch k.to {
	case toPod:
		return netip.AddrPortFrom(pick(family, netns.PodIPv4, netns.PodIPv6), k.port)
	case toLoopback:
		return netip.AddrPortFrom(pick(family, netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()), k.port)
	}
	return netip.AddrPortFrom(pick(family, netns.OutsideIPv4, netns.OutsideIPv6), k.port)
}

func pick(family string, v4, v6 netip.Addr) netip.Addr {
	if family == "v4" {
		return v4
	}
	return v6
}

// check opens the connection and checks the way it went.
func (tr *traffic) check(t *testing.T, kind kind, family string) error {
	reply, err := tr.open(t, kind, family)
	seen := tr.proxy.take()
	if err != nil {
		return fmt.Errorf("%w; the proxy saw %v", err, seen)
	}
	want := kind.destination(family)
	if reply.Local != want {
		return fmt.Errorf("answered by %+v, want the server at %s; the proxy saw %v", reply, want, seen)
	}
	if kind.way == direct {
		if len(seen) != 0 {
			return fmt.Errorf("went through the proxy: %v, want direct", seen)
		}
	} else if len(seen) != 1 || seen[0].listener != kind.way || seen[0].original != want || seen[0].err != nil {
		return fmt.Errorf("the proxy saw %v, want one connection to %s by its %s listener", seen, want, kind.way)
	}
	if source := tr.source(kind, family); reply.Remote.Addr() != source {
		return fmt.Errorf("the server saw the client as %s, want %s", reply.Remote.Addr(), source)
	}
	return nil
}

// source returns the client's address that the server has to see.
func (tr *traffic) source(k kind, family string) netip.Addr {
	dst := k.destination(family).Addr()
	switch {
	case k.way == inbound && tr.system == interception.SystemRedirect:
		return passthrough(dst)
	case k.outside:
		return pick(family, netns.OutsideIPv4, netns.OutsideIPv6)
	case k.to == toLoopback:
		return dst
	}
	return pick(family, netns.PodIPv4, netns.PodIPv6)
}

func newLab(t *testing.T, interfaces ...string) *netns.Lab {
	t.Helper()
	lab, err := netns.NewLab(interfaces...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab
}

// listenBoth starts a server on a port of all addresses of both families.
func listenBoth(t *testing.T, ns *netns.NS, network string, port uint16, o netns.ListenOptions) {
	t.Helper()
	for _, wildcard := range netns.Wildcards {
		server, err := ns.Listen(network, netip.AddrPortFrom(wildcard, port), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = server.Close() })
	}
}
