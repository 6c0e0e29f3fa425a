package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// direction is one of the ways through a proxy: from a client to a server, in one family.
type direction struct {
	inbound bool // from a client outside to the app; otherwise from the app to a server outside
	ipv6    bool
}

// way is such a way through a pod's proxy. It records every connection at both ends.
type way struct {
	direction
	pod    *pod
	system interception.System

	mu      sync.Mutex
	check   int    // number of the current check
	wanted  []want // of the access log
	dialed  []ends
	arrived map[ends]bool   // the client's end is the proxy's, as the server sees it
	sudden  map[uint16]bool // ports on which many connections end at once
}

// ends are the two ends of a connection.
type ends struct{ client, server netip.AddrPort }

// appIdentity is the app's identity.
var appIdentity = netns.Identity{UID: 1000, GID: 1000}

// The server outside.
var (
	serverIPv4 = netip.MustParseAddr("203.0.113.10")
	serverIPv6 = netip.MustParseAddr("2001:db8::10")
)

func (d direction) String() string {
	to, family := "outbound", "IPv4"
	if d.inbound {
		to = "inbound"
	}
	if d.ipv6 {
		family = "IPv6"
	}
	return to + " " + family
}

// addressOf returns the address of the way's family.
func (w *way) addressOf(v4, v6 netip.Addr) netip.Addr {
	if w.ipv6 {
		return v6
	}
	return v4
}

// server returns the address and port that the client dials.
func (w *way) server(port uint16) netip.AddrPort {
	if w.inbound {
		return netip.AddrPortFrom(w.addressOf(netns.PodIPv4, netns.PodIPv6), port)
	}
	return netip.AddrPortFrom(w.addressOf(serverIPv4, serverIPv6), port)
}

// source returns the client's address that a server has to see.
func (w *way) source() netip.Addr {
	switch {
	case !w.inbound:
		return w.addressOf(netns.PodIPv4, netns.PodIPv6)
	case w.system == interception.SystemTProxy || w.system == interception.SystemAmbient:
		return w.addressOf(netns.OutsideIPv4, netns.OutsideIPv6)
	case w.system == interception.SystemLegacy:
		return w.addressOf(netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback())
	default:
		return w.addressOf(netip.MustParseAddr("127.0.0.6"), netip.MustParseAddr("::6"))
	}
}

// loopback reports whether the proxy connects to loopback instead.
func (w *way) loopback() bool { return w.inbound && w.system == interception.SystemLegacy }

// arrival returns the address that the server sees as its own.
func (w *way) arrival(server netip.AddrPort) netip.AddrPort {
	if w.loopback() {
		return netip.AddrPortFrom(w.source(), server.Port())
	}
	return server
}

// logged returns the server's address in the proxy's log: HAProxy logs loopback if it connects
// there.
func (w *way) logged(server netip.AddrPort) netip.AddrPort {
	if w.pod.kind == haproxy {
		return w.arrival(server)
	}
	return server
}

// listener and cluster are the proxy's names for the two halves of the way. In legacy there is one
// for both directions.
func (w *way) listener() string {
	name := "virtualOutbound"
	if w.inbound && !w.loopback() {
		name = "virtualInbound"
	}
	if w.ipv6 {
		name += "_v6"
	}
	return name
}

func (w *way) cluster() string {
	switch {
	case !w.inbound || w.loopback():
		return "PassthroughCluster"
	case w.ipv6:
		return "InboundPassthroughClusterIpv6"
	default:
		return "InboundPassthroughClusterIpv4"
	}
}

// dial opens a connection from the client to a port of the server.
func (w *way) dial(ctx context.Context, port uint16) (*net.TCPConn, error) {
	from, o := w.pod.Pod, netns.DialOptions{Identity: appIdentity, Timeout: answerTime}
	if w.inbound {
		from, o = w.pod.Outside, netns.DialOptions{Source: w.addressOf(netns.OutsideIPv4, netns.OutsideIPv6), Timeout: answerTime}
	}
	conn, err := from.Dial(ctx, "tcp", w.server(port), o)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dialed = append(w.dialed, ends{netip.MustParseAddrPort(conn.LocalAddr().String()), w.server(port)})
	return conn.(*net.TCPConn), nil
}

// answerTime is how long a whole check may take on a busy machine.
const answerTime = 60 * time.Second

func (w *way) mustDial(t *testing.T, port uint16) *net.TCPConn {
	t.Helper()
	conn, err := w.dial(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// accepting is a listener that accepts with the listener's identity.
type accepting struct {
	*net.TCPListener
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// Accept waits for the next connection.
func (a *accepting) Accept() (net.Conn, error) {
	select {
	case conn := <-a.conns:
		return conn, nil
	case <-a.closed:
		return nil, net.ErrClosed
	}
}

// Close closes the listener, once.
func (a *accepting) Close() error {
	err := net.ErrClosed
	a.once.Do(func() {
		close(a.closed)
		err = a.TCPListener.Close()
	})
	return err
}

// listen makes the server accept connections to a port, until the test's end.
func (w *way) listen(t *testing.T, port uint16) net.Listener {
	t.Helper()
	ns, o := w.pod.Outside, netns.ListenOptions{Name: "outside"}
	if w.inbound {
		ns, o = w.pod.Pod, netns.ListenOptions{Name: "app", Identity: appIdentity}
	}
	listener, err := ns.ListenTCP(netip.AddrPortFrom(w.addressOf(netns.Wildcards[0], netns.Wildcards[1]), port), o)
	if err != nil {
		t.Fatal(err)
	}
	a := &accepting{TCPListener: listener, conns: make(chan net.Conn), closed: make(chan struct{})}
	go o.Accept(listener, func(conn *net.TCPConn) {
		w.note(conn)
		select {
		case a.conns <- conn:
		case <-a.closed:
			_ = conn.Close()
		}
	})
	t.Cleanup(func() { _ = a.Close() })
	return a
}

func (w *way) note(conn *net.TCPConn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.arrived == nil {
		w.arrived = map[ends]bool{}
	}
	w.arrived[ends{netip.MustParseAddrPort(conn.RemoteAddr().String()), netip.MustParseAddrPort(conn.LocalAddr().String())}] = true
}

// serve answers each connection to a port in a goroutine of its own, and
// closes it afterwards. An error fails the test.
func (w *way) serve(t *testing.T, port uint16, answer func(*net.TCPConn) error) {
	t.Helper()
	listener := w.listen(t, port)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				if err := errors.Join(conn.SetDeadline(time.Now().Add(answerTime)), answer(conn.(*net.TCPConn))); err != nil {
					t.Errorf("server: %v", err)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
}

// logLine is a line of the proxy's access log.
type logLine map[string]any

// logLines returns all lines of the proxy's access log so far.
func (p *pod) logLines() []logLine {
	var all []logLine
	for _, text := range p.Proxy.Output() {
		var line logLine
		if json.Unmarshal([]byte(text), &line) == nil {
			all = append(all, line)
		}
	}
	return all
}

// lines returns those of this way.
func (w *way) lines() []logLine {
	return slices.DeleteFunc(w.pod.logLines(), func(line logLine) bool {
		server, err := netip.ParseAddrPort(line.text("downstream_local_address"))
		return line["listener"] != w.listener() || err != nil || server.Addr() != w.logged(w.server(0)).Addr()
	})
}

func (l logLine) text(field string) string { return fmt.Sprint(l[field]) }

// want is a line that a check wants in the access log.
type want struct {
	check int
	line  logLine
}

// wantLogged wants a line. HAProxy's log has no protocols.
func (w *way) wantLogged(line logLine) {
	if w.pod.kind == envoy {
		w.wanted = append(w.wanted, want{w.check, line})
	}
}

// logTime is longer than a proxy may buffer a line.
const logTime = 15 * time.Second

func (l logLine) saidBy(line logLine) bool {
	for field, value := range l {
		if line.text(field) != fmt.Sprint(value) {
			return false
		}
	}
	return true
}

// checkEnds checks that every server saw the source address that it should, and
// that the five addresses of every connection are in the access log.
func (w *way) checkEnds(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for e := range w.arrived {
		if e.client.Addr() != w.source() {
			t.Errorf("server %s saw %s, want %s", e.server, e.client, w.source())
		}
	}
	var found finding
	for deadline := time.Now().Add(logTime); ; time.Sleep(100 * time.Millisecond) {
		if found = w.find(w.lines()); len(found.missing) == 0 || time.Now().After(deadline) {
			break
		}
	}
	if n := len(found.wrong); n > 0 {
		t.Errorf("%d lines of the access log are wrong, such as: %s", n, found.wrong[0])
	}
	if n := len(found.missing); n > 0 {
		t.Errorf("%d of %d connections are not in the access log, such as %v", n, len(w.dialed), found.missing[0])
	}
	t.Logf("%d connections of clients, %d to servers, which saw %s; in the log: %d with all five addresses, %d by another port, %d dropped",
		len(w.dialed), len(w.arrived), w.source(), found.exact, found.renamed, found.dropped)
}

// finding is what an access log holds about the connections of a way.
type finding struct {
	exact, renamed, dropped int
	missing                 []ends
	wrong                   []string
}

// find looks for the connections.
//
// The proxy may see another port than the client's own: a client may use a port for several
// destinations, which REDIRECT makes one, so that netfilter gives the later ones other ports.
func (w *way) find(lines []logLine) finding {
	var f finding
	logged := map[ends][]logLine{}
	for _, line := range lines {
		client, _ := netip.ParseAddrPort(line.text("downstream_remote_address"))
		server, _ := netip.ParseAddrPort(line.text("downstream_local_address"))
		logged[ends{client, server}] = append(logged[ends{client, server}], line)
	}
	var missing []ends
	for _, e := range w.dialed {
		as := ends{e.client, w.logged(e.server)}
		if _, found := logged[as]; !found {
			missing = append(missing, as)
			continue
		}
		f.exact++
		f.wrong = append(f.wrong, w.wrong(as, logged[as])...)
		delete(logged, as)
	}
	renamed := map[ends]int{} // by the address alone
	for e, of := range logged {
		f.wrong = append(f.wrong, w.wrong(e, of)...)
		renamed[e.portless()]++
	}
	for _, e := range missing {
		switch {
		case renamed[e.portless()] > 0:
			renamed[e.portless()]--
			f.renamed++
		case w.mayBeDropped(e):
			f.dropped++
		default:
			f.missing = append(f.missing, e)
		}
	}
	return f
}

// missingLines returns the wanted lines that are not in the access log, once all connections are.
func (w *way) missingLines() []want {
	lines := w.lines()
	return slices.DeleteFunc(w.wanted, func(want want) bool { return slices.ContainsFunc(lines, want.line.saidBy) })
}

func (e ends) portless() ends {
	return ends{netip.AddrPortFrom(e.client.Addr(), 0), e.server}
}

// wrong returns the lines in which one of the other three addresses is wrong.
func (w *way) wrong(e ends, lines []logLine) (wrong []string) {
	for _, line := range lines {
		if !w.right(e, line) {
			wrong = append(wrong, fmt.Sprintf("connection %v is logged as %v", e, line))
		}
	}
	return wrong
}

// mayBeDropped reports whether lines may be missing: HAProxy does not wait for the reader of its
// log, and drops lines that do not fit in the pipe.
func (w *way) mayBeDropped(e ends) bool { return w.pod.kind == haproxy && w.sudden[e.server.Port()] }

// right compares the three addresses that are not the client's. HAProxy does not know its own port
// where it uses the client's address.
func (w *way) right(e ends, line logLine) bool {
	if line.text("upstream_host") != w.arrival(e.server).String() || !strings.HasPrefix(line.text("upstream_cluster"), w.cluster()) {
		return false
	}
	proxyEnd := line.text("upstream_local_address")
	if w.pod.kind == haproxy && w.inbound && w.system == interception.SystemTProxy {
		addr, err := netip.ParseAddr(strings.Trim(proxyEnd, "[]"))
		return err == nil && addr == w.source()
	}
	at, err := netip.ParseAddrPort(proxyEnd)
	return err == nil && w.arrived[ends{at, w.arrival(e.server)}]
}
