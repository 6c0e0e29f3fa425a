package proxy

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// sample is one of the other proxies in config/samples.
type sample struct {
	folder string
	// program stands in for the container's command on this machine.
	program func(*testing.T) string
	// serves holds the ways that the proxy serves, by mode, with the cluster that its log names for
	// each. On the other ways nothing bypasses it.
	serves map[interception.Mode]map[string]string
}

// The ways of connections.
const (
	in4, in6   = "in, IPv4", "in, IPv6"
	out4, out6 = "out, IPv4", "out, IPv6"
)

var allSamples = []sample{
	{"haproxy", haproxyBinary, map[interception.Mode]map[string]string{
		// HAProxy does not ask the kernel for the original destination of a redirected IPv6
		// connection.
		interception.ModeRedirect: {in4: "InboundPassthroughClusterIpv4", out4: "PassthroughCluster"},
		interception.ModeTProxy: {
			in4: "InboundPassthroughClusterIpv4", in6: "InboundPassthroughClusterIpv6", out4: "PassthroughCluster",
		},
	}},
	{"mitmproxy", mitmdump, map[interception.Mode]map[string]string{
		interception.ModeRedirect: {in4: "inbound", in6: "inbound", out4: "outbound", out6: "outbound"},
	}},
	{"envoy-bootstrap", envoyBinary, map[interception.Mode]map[string]string{
		interception.ModeRedirect: {
			in4: "InboundPassthroughCluster", in6: "InboundPassthroughCluster",
			out4: "PassthroughCluster", out6: "PassthroughCluster",
		},
	}},
}

// mitmdump returns the path of mitmproxy's program.
func mitmdump(t *testing.T) string {
	t.Helper()
	return programIn(t, "MITMDUMP")
}

// Ports of the servers in the pod, and outside of it.
const (
	plainPort    = 8080
	greetingPort = 3306 // where the server speaks first
	securePort   = 8443
)

// TestSamples checks that a pod that is injected with a sample's configuration has its connections
// go through the proxy both ways.
func TestSamples(t *testing.T) {
	t.Parallel()
	for _, s := range allSamples {
		for mode, serves := range s.serves {
			t.Run(s.folder+"/"+string(mode), func(t *testing.T) {
				p := s.start(t, mode)
				for _, c := range p.crossings() {
					t.Run(c.name, func(t *testing.T) {
						if cluster, served := serves[c.name]; served {
							c.checkHTTP(t, cluster)
							c.checkStream(t)
							c.checkHTTP2(t)
							c.checkGreeting(t)
							c.checkTLS(t)
							c.checkKubelet(t)
						} else {
							c.checkRefused(t, plainPort)
						}
						c.checkLoop(t)
					})
				}
			})
		}
	}
}

// crossing is a way of connections through a pod's proxy.
type crossing struct {
	*samplePod
	name   string
	dial   dialer
	host   netip.Addr // the server
	source netip.Addr // the client's address that the server sees
}

func (p *samplePod) crossings() []crossing {
	source4, source6 := netip.MustParseAddr("127.0.0.6"), netip.MustParseAddr("::6")
	if p.mode == interception.ModeTProxy {
		source4, source6 = netns.OutsideIPv4, netns.OutsideIPv6
	}
	outside, inside := fromOutside(p.Lab), dialer(p.Pod.Dial)
	return []crossing{
		{p, in4, outside, netns.PodIPv4, source4},
		{p, in6, outside, netns.PodIPv6, source6},
		{p, out4, inside, netns.OutsideIPv4, netns.PodIPv4},
		{p, out6, inside, netns.OutsideIPv6, netns.PodIPv6},
	}
}

func (c crossing) to(port uint16) netip.AddrPort { return netip.AddrPortFrom(c.host, port) }

func (c crossing) inbound() bool { return c.name == in4 || c.name == in6 }

// open opens a connection to a port of the host.
func (c crossing) open(t *testing.T, port uint16) net.Conn {
	t.Helper()
	conn, err := c.dial(t.Context(), "tcp", c.to(port), netns.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// checkHTTP sends a request with a body, which has to be echoed, and looks for the connection's
// addresses in the proxy's log.
func (c crossing) checkHTTP(t *testing.T, cluster string) {
	conn := c.open(t, plainPort)
	body := strings.Repeat("0123456789", 100_000)
	request := httptest.NewRequest(http.MethodPost, "http://"+c.to(plainPort).String()+"/there-and-back", strings.NewReader(body))
	request.Close = true
	if err := request.Write(conn); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		t.Fatalf("%v\n%s", err, c.Output())
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	_ = conn.Close() // a connection is logged once both its ends are closed
	if err != nil || string(got) != body {
		t.Errorf("status %s, %d bytes of the body came back, want %d; error %v", response.Status, len(got), len(body), err)
	}
	seen := response.Header.Get("Seen-From")
	if from, err := netip.ParseAddrPort(seen); err != nil || from.Addr() != c.source {
		t.Errorf("the server sees %s, want an address of %s", seen, c.source)
	}
	c.waitLogged(t, logLine{
		"upstream_cluster":          cluster,
		"upstream_host":             c.to(plainPort).String(),
		"upstream_local_address":    c.localAddress(t, seen),
		"downstream_local_address":  c.to(plainPort).String(),
		"downstream_remote_address": conn.LocalAddr().String(),
	})
	if c.folder == "mitmproxy" && !strings.Contains(c.Output(), "POST http://") {
		t.Errorf("mitmproxy has not printed the request:\n%s", c.Output())
	}
}

// localAddress returns the log's entry for the address that the server sees. In TPROXY HAProxy logs
// it without the port, which the kernel chooses; for IPv6 it never logs the port.
func (c crossing) localAddress(t *testing.T, seen string) string {
	address, err := netip.ParseAddrPort(seen)
	if err != nil {
		t.Fatalf("the server saw %q: %v", seen, err)
	}
	switch {
	case c.folder != "haproxy" || !c.inbound() || c.mode != interception.ModeTProxy:
		return seen
	case address.Addr().Is6():
		return "[" + address.Addr().String() + "]"
	default:
		return address.Addr().String()
	}
}

func (c crossing) waitLogged(t *testing.T, want logLine) {
	for deadline := time.Now().Add(logTime); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if slices.ContainsFunc(c.logLines(), want.saidBy) {
			return
		}
	}
	t.Errorf("no line of the log has %v:\n%s", want, c.Output())
}

// checkStream checks that data without a stated length arrives before its end, which may never
// come.
func (c crossing) checkStream(t *testing.T) {
	conn := c.open(t, plainPort)
	body := io.MultiReader(strings.NewReader("hello")) // of a length that the client does not state
	request := httptest.NewRequest(http.MethodPost, "http://"+c.to(plainPort).String()+"/stream", body)
	if err := request.Write(conn); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		t.Errorf("an answer without an end: %v", err)
		return
	}
	defer response.Body.Close()
	defer conn.Close() // before the body, which would be read to its end
	start := make([]byte, len("hello"))
	if _, err := io.ReadFull(response.Body, start); err != nil || string(start) != "hello" {
		t.Errorf("an answer without an end begins with %q, error %v; want hello", start, err)
	}
}

// checkHTTP2 speaks HTTP/2 without TLS from the first byte on, as gRPC does.
func (c crossing) checkHTTP2(t *testing.T) {
	h2 := client(c.dial)
	transport := h2.Transport.(*http.Transport)
	transport.DisableKeepAlives = false // which would make it HTTP/1
	transport.Protocols = &http.Protocols{}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer h2.CloseIdleConnections()
	response, err := h2.Get("http://" + c.to(plainPort).String())
	if err != nil {
		t.Errorf("HTTP/2: %v", err)
		return
	}
	defer response.Body.Close()
	if spoken := response.Header.Get("Spoken"); response.StatusCode != http.StatusOK || spoken != "HTTP/2.0" {
		t.Errorf("HTTP/2: status %s, the server was spoken to in %s", response.Status, spoken)
	}
}

// checkGreeting connects to a server that speaks first, and then echoes.
func (c crossing) checkGreeting(t *testing.T) {
	conn := c.open(t, greetingPort)
	reader := bufio.NewReader(conn)
	if line, err := reader.ReadString('\n'); err != nil || !strings.Contains(line, c.source.String()) {
		t.Fatalf("the server's greeting is %q, error %v; want it to name %s", line, err, c.source)
	}
	if _, err := io.WriteString(conn, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := reader.ReadString('\n'); err != nil || line != "hello\n" {
		t.Errorf("the server answers %q, error %v; want hello", line, err)
	}
}

// checkTLS checks that the client sees the server's certificate and not one of the proxy.
func (c crossing) checkTLS(t *testing.T) {
	conn := tls.Client(c.open(t, securePort), &tls.Config{RootCAs: c.trusted, ServerName: "example.com"})
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Errorf("TLS: %v", err)
	}
}

// checkKubelet probes the pod's health as kubelet does.
func (c crossing) checkKubelet(t *testing.T) {
	if !c.inbound() {
		return
	}
	if status, body := get(client(c.dial), c.host, interception.HealthPort, "/healthz/ready"); status != http.StatusOK {
		t.Errorf("health: status %d %s", status, body)
	}
}

// checkRefused checks that a connection on a way that the proxy does not serve is refused, and does
// not bypass the proxy.
func (c crossing) checkRefused(t *testing.T, port uint16) {
	conn, err := c.dial(t.Context(), "tcp", c.to(port), netns.DialOptions{})
	if err == nil {
		_ = conn.Close()
	}
	if !netns.IsRefused(err) {
		t.Errorf("dialing %s: %v, want it refused", c.to(port), err)
	}
}

// checkLoop checks that a connection to the proxy's own port is closed.
func (c crossing) checkLoop(t *testing.T) {
	if !c.inbound() {
		return
	}
	for _, port := range []uint16{interception.DefaultInboundPort, interception.DefaultOutboundPort} {
		if c.serves[c.mode][c.name] == "" {
			c.checkRefused(t, port)
			continue
		}
		conn := c.open(t, port)
		if n, err := conn.Read(make([]byte, 1)); n > 0 || netns.IsTimeout(err) {
			t.Errorf("port %d: read %d bytes, error %v; want the end of the connection", port, n, err)
		}
	}
}
