//go:build linux

package rules

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// proxy is a transparent proxy in a pod, with nothing but what the rules are for. Two listeners
// accept connections and forward each to its own destination, as Istio's systems do.
//
//	listener | mode     | original destination      | source of the next connection
//	outbound | both     | SO_ORIGINAL_DST           | the pod's address
//	inbound  | REDIRECT | SO_ORIGINAL_DST           | 127.0.0.6 or ::6
//	inbound  | TPROXY   | the socket's own address  | the client's address, marked
//	outbound | TPROXY without conntrack | the socket's own address | the pod's address, marked
type proxy struct {
	pod      *netns.NS
	spec     interception.Spec
	identity proxyIdentity

	listeners []*net.TCPListener
	serving   sync.WaitGroup

	mu   sync.Mutex
	seen []crossing
	open []net.Conn
}

// proxyIdentity is how the kernel sees the proxy.
type proxyIdentity struct {
	netns.Identity
	unmarked bool // it cannot set SO_MARK
	bound    bool // it binds its connections to the app to lo, where it can
}

// crossing is one connection through the proxy.
type crossing struct {
	listener         string // outbound or inbound
	client, original netip.AddrPort
	err              error // why it was not forwarded
}

func (c crossing) String() string {
	return fmt.Sprintf("%s: %s wanted %s, error: %v", c.listener, c.client, c.original, c.err)
}

// maxCrossings stops a rule set that loops.
const maxCrossings = 8

var (
	errLoop = errors.New("the connection comes from the proxy itself and comes back to it")
	errSelf = errors.New("its destination is the proxy's own listener")
)

const (
	outbound = "outbound"
	inbound  = "inbound"
)

func startProxy(t *testing.T, pod *netns.NS, spec interception.Spec, id proxyIdentity) *proxy {
	t.Helper()
	p := &proxy{pod: pod, spec: spec, identity: id}
	t.Cleanup(p.stop)
	for _, wildcard := range netns.Wildcards {
		for port, name := range map[uint16]string{spec.OutboundPort: outbound, spec.InboundPort: inbound} {
			o := netns.ListenOptions{
				Identity: id.Identity, Name: name,
				Transparent: name == inbound && spec.System == interception.SystemTProxy || spec.NoConntrack,
			}
			listener, err := pod.ListenTCP(netip.AddrPortFrom(wildcard, port), o)
			if err != nil {
				t.Fatal(err)
			}
			p.listeners = append(p.listeners, listener)
			p.serving.Go(func() {
				o.Accept(listener, func(conn *net.TCPConn) {
					p.serving.Go(func() { p.serve(t.Context(), name, conn) })
				})
			})
		}
	}
	return p
}

func (p *proxy) stop() {
	for _, listener := range p.listeners {
		_ = listener.Close()
	}
	p.mu.Lock()
	for _, conn := range p.open {
		_ = conn.Close() // its other end may be cut off
	}
	p.mu.Unlock()
	p.serving.Wait()
}

// hold records connections that stop has to close.
func (p *proxy) hold(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = append(p.open, conns...)
}

// take returns the connections since the last call.
func (p *proxy) take() []crossing {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.seen
	p.seen = nil
	return seen
}

// note adds a connection; it returns false if there are so many that it must be a loop.
func (p *proxy) note(c crossing) (ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.seen) == maxCrossings-1 {
		c.err = errLoop
	}
	p.seen = append(p.seen, c)
	return len(p.seen) < maxCrossings && c.err == nil
}

func (p *proxy) serve(ctx context.Context, listener string, client *net.TCPConn) {
	defer client.Close()
	c := crossing{listener: listener, client: client.RemoteAddr().(*net.TCPAddr).AddrPort()}
	c.original, c.err = p.destination(listener, client)
	if c.err == nil && (c.original.Port() == p.spec.InboundPort || c.original.Port() == p.spec.OutboundPort) {
		c.err = errSelf
	}
	if !p.note(c) {
		return
	}
	onward, err := p.pod.Dial(ctx, "tcp", c.original, p.onwardOptions(c))
	if err != nil {
		p.note(crossing{listener, c.client, c.original, fmt.Errorf("going on: %w", err)})
		return
	}
	defer onward.Close()
	p.hold(client, onward)
	relay(client, onward.(*net.TCPConn))
}

func (p *proxy) destination(listener string, client *net.TCPConn) (netip.AddrPort, error) {
	if listener == inbound && p.spec.System == interception.SystemTProxy || p.spec.NoConntrack {
		return client.LocalAddr().(*net.TCPAddr).AddrPort(), nil
	}
	return netns.OriginalDst(client)
}

// ownOptions are those of its connections that are not to the app.
func (p *proxy) ownOptions() netns.DialOptions {
	o := netns.DialOptions{Identity: p.identity.Identity}
	if p.spec.NoConntrack && !p.identity.unmarked {
		o.Mark = p.spec.Marks().Proxy
	}
	return o
}

func (p *proxy) onwardOptions(c crossing) netns.DialOptions {
	o := p.ownOptions()
	switch {
	case c.listener == outbound:
	case p.spec.System == interception.SystemRedirect:
		o.Source = passthrough(c.original.Addr())
	default:
		o.Source = c.client.Addr()
		if !p.identity.unmarked {
			o.Mark = p.spec.Mark
		}
	}
	// A socket that is bound to lo does not get the answers to an address of another interface: for
	// the kernel they come in by that one.
	if p.identity.bound && c.listener == inbound && o.Source != netns.PodIPv4 && o.Source != netns.PodIPv6 {
		o.Device = "lo"
	}
	return o
}

// passthrough returns the address that the proxy binds for its connections to the app in REDIRECT.
func passthrough(dst netip.Addr) netip.Addr {
	if dst.Is4() {
		return netip.MustParseAddr("127.0.0.6")
	}
	return netip.MustParseAddr("::6")
}

// relay copies bytes both ways until both ends have closed.
func relay(a, b *net.TCPConn) {
	var both sync.WaitGroup
	for _, way := range [][2]*net.TCPConn{{a, b}, {b, a}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_ = way[0].CloseWrite()
		})
	}
	both.Wait()
}
