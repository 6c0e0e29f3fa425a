package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// TestServing starts the sidecar in a network namespace of its own, as the
// user and with the capabilities of its container, and asks it what kubelet,
// Prometheus and strangers would.
func TestServing(t *testing.T) {
	envoy := envoyBinary(t)
	netns.Require(t)
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			lab, err := netns.NewLab()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { closeLab(t, lab) })
			log := start(t, lab.Pod, envoy, sidecar(t, mode, allFamilies[0]))
			outside, inside := client(fromOutside(lab)), client(dialer(lab.Pod.Dial))
			waitLive(t, inside, log)
			for _, pod := range []netip.Addr{netns.PodIPv4, netns.PodIPv6} {
				checkOpenPorts(t, outside, pod)
				checkAdminIsClosed(t, fromOutside(lab), pod)
				if mode != interception.ModeNone {
					checkLoop(t, fromOutside(lab), netip.AddrPortFrom(pod, interception.DefaultInboundPort), log)
					checkLoop(t, fromOutside(lab), netip.AddrPortFrom(pod, interception.DefaultOutboundPort), log)
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

// start runs Envoy confined as its container would be. Envoy's file is handed
// over open, because the proxy's user may not be allowed to walk to it.
func start(t *testing.T, pod *netns.NS, envoy string, container corev1.Container) *output {
	file, err := os.Open(envoy)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	bounding := "-all"
	for _, capability := range container.SecurityContext.Capabilities.Add {
		bounding += ",+" + strings.ToLower(string(capability))
	}
	args := slices.Concat([]string{
		fmt.Sprintf("--reuid=%d", *container.SecurityContext.RunAsUser),
		fmt.Sprintf("--regid=%d", *container.SecurityContext.RunAsGroup),
		"--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=" + bounding, "--pdeathsig=KILL",
		"/proc/self/fd/3",
	}, commandLine(container))
	log := &output{}
	cmd := pod.Command(t.Context(), "setpriv", args...)
	cmd.ExtraFiles = []*os.File{file}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("start envoy by setpriv (of util-linux): %v", err)
	}
	// The end of the test's context kills it.
	t.Cleanup(func() { _ = cmd.Wait() })
	return log
}

// output gathers what a process writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write takes what the process wrote.
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

// fromOutside dials as the host outside that the rule cases speak of.
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

// get returns the status and body of a page, or a status of 0 and the error.
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

func waitLive(t *testing.T, c *http.Client, log *output) {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if status, _ := get(c, netns.PodIPv4, interception.HealthPort, "/healthz/ready"); status == http.StatusOK {
			return
		}
	}
	t.Fatalf("envoy is not live after 20 s:\n%s", log)
}

// checkOpenPorts: of health and metrics one page each, and nothing else.
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

// checkLoop connects to a pass-through listener as its own destination: the
// proxy must hang up rather than call itself, and log that it did.
func checkLoop(t *testing.T, dial dialer, listener netip.AddrPort, log *output) {
	conn, err := dial(t.Context(), "tcp", listener, netns.DialOptions{})
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
	want := map[string]any{
		"upstream_cluster":          "BlackHoleCluster",
		"downstream_local_address":  listener.String(),
		"downstream_remote_address": conn.LocalAddr().String(),
	}
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if logged(log.String(), want) {
			return
		}
	}
	t.Errorf("%s: no line of the access log has %v:\n%s", listener, want, log)
}

// logged reports whether a line of the access log has all the fields wanted.
func logged(log string, want map[string]any) bool {
	for line := range strings.Lines(log) {
		var fields map[string]any
		if json.Unmarshal([]byte(line), &fields) != nil {
			continue
		}
		matches := true
		for name, value := range want {
			matches = matches && fields[name] == value
		}
		if matches {
			return true
		}
	}
	return false
}

// checkFailing: from within the pod the admin interface answers, and a proxy
// that it tells to fail says so to kubelet.
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
