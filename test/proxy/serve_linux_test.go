package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// TestServing starts the sidecar in a network namespace of its own, as the user and with the
// capabilities of its container, and sends the requests of kubelet, Prometheus and strangers.
func TestServing(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			p := envoyWithoutRules(t, mode)
			outside, inside := client(fromOutside(p.Lab)), client(dialer(p.Pod.Dial))
			for _, addr := range p.Node.PodIPs {
				checkOpenPorts(t, outside, addr)
				checkAdminIsClosed(t, fromOutside(p.Lab), addr)
				if mode != interception.ModeNone {
					checkLoop(t, p, netip.AddrPortFrom(addr, interception.DefaultInboundPort))
					checkLoop(t, p, netip.AddrPortFrom(addr, interception.DefaultOutboundPort))
				}
			}
			checkFailing(t, inside, outside)
		})
	}
}

func closeLab(t *testing.T, lab *netns.Lab) {
	if err := lab.Close(); err != nil {
		t.Error(err)
	}
}

// envoyWithoutRules starts a pod with Envoy whose connections nothing redirects: shunt-init leaves
// Envoy its bootstrap, and no rules.
func envoyWithoutRules(t *testing.T, mode interception.Mode) *pod {
	t.Helper()
	netns.Require(t, "iptables-nft")
	p := startPod(t, newPod(t, mode, nil, nil), map[string]string{envoy: envoyBinary(t)}, nil)
	if mode == interception.ModeNone {
		return p
	}
	if out, err := p.Pod.Command(t.Context(), buildShuntInit(t), "--remove").CombinedOutput(); err != nil {
		t.Fatalf("shunt-init --remove: %v\n%s", err, out)
	}
	return p
}

// output collects what a process writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write appends what the process wrote.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// dialer opens connections from some namespace.
type dialer func(context.Context, string, netip.AddrPort, netns.DialOptions) (net.Conn, error)

// fromOutside dials as the host outside in the rule cases.
func fromOutside(lab *netns.Lab) dialer {
	return func(ctx context.Context, network string, to netip.AddrPort, o netns.DialOptions) (net.Conn, error) {
		o.Source = netns.OutsideIPv4
		if to.Addr().Is6() {
			o.Source = netns.OutsideIPv6
		}
		return lab.Outside.Dial(ctx, network, to, o)
	}
}

func client(dial dialer) *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, to string) (net.Conn, error) {
			at, err := netip.ParseAddrPort(to)
			if err != nil {
				return nil, err
			}
			return dial(ctx, "tcp", at, netns.DialOptions{Timeout: 2 * time.Second})
		},
	}}
}

// get returns the status and body of a page, or status 0 and the error.
func get(c *http.Client, host netip.Addr, port uint16, path string) (int, string) {
	response, err := c.Get(fmt.Sprintf("http://%s%s", netip.AddrPortFrom(host, port), path))
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(body)
}

// checkOpenPorts checks that health and metrics serve one page each, and nothing else.
func checkOpenPorts(t *testing.T, c *http.Client, pod netip.Addr) {
	for _, page := range []struct {
		port   uint16
		path   string
		status int
		holds  string
	}{
		{interception.HealthPort, "/healthz/ready", http.StatusOK, ""},
		{interception.HealthPort, "/", http.StatusNotFound, ""},
		{interception.MetricsPort, "/stats/prometheus", http.StatusOK, "envoy_server_live"},
		{interception.MetricsPort, "/stats", http.StatusNotFound, ""},
		{interception.MetricsPort, "/stats/prometheus/../../quitquitquit", http.StatusNotFound, ""},
		{interception.MetricsPort, "/quitquitquit", http.StatusNotFound, ""},
	} {
		status, body := get(c, pod, page.port, page.path)
		if status != page.status || !strings.Contains(body, page.holds) {
			t.Errorf("%s port %d %s: status %d, want %d, and a body that holds %q:\n%.300s",
				pod, page.port, page.path, status, page.status, page.holds, body)
		}
	}
}

func checkAdminIsClosed(t *testing.T, dial dialer, pod netip.Addr) {
	conn, err := dial(t.Context(), "tcp", netip.AddrPortFrom(pod, interception.AdminPort), netns.DialOptions{})
	if err == nil {
		conn.Close()
	}
	if !netns.IsRefused(err) {
		t.Errorf("dialing the admin interface at %s: %v, want it refused", pod, err)
	}
}

// checkLoop connects to a pass-through listener as its own destination: the proxy must close the
// connection and log it, and not call itself.
func checkLoop(t *testing.T, p *pod, listener netip.AddrPort) {
	conn, err := fromOutside(p.Lab)(t.Context(), "tcp", listener, netns.DialOptions{})
	if err != nil {
		t.Errorf("%s: %v", listener, err)
		return
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n > 0 || netns.IsTimeout(err) {
		t.Errorf("%s: read %d bytes, error %v; want the end of the connection", listener, n, err)
	}
	want := logLine{
		"upstream_cluster":          "BlackHoleCluster",
		"downstream_local_address":  listener.String(),
		"downstream_remote_address": conn.LocalAddr().String(),
	}
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if slices.ContainsFunc(p.logLines(), want.saidBy) {
			return
		}
	}
	t.Errorf("%s: no line of the access log has %v:\n%s", listener, want, p.Output())
}

// checkFailing checks that the admin interface answers within the pod, and that a proxy that it
// makes fail reports so to kubelet.
func checkFailing(t *testing.T, inside, outside *http.Client) {
	response, err := inside.Post(fmt.Sprintf("http://127.0.0.1:%d/healthcheck/fail", interception.AdminPort), "", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("admin's /healthcheck/fail: status %s", response.Status)
	}
	if status, _ := get(outside, netns.PodIPv6, interception.HealthPort, "/healthz/ready"); status != http.StatusServiceUnavailable {
		t.Errorf("health of a proxy that was told to fail: status %d, want 503", status)
	}
}
