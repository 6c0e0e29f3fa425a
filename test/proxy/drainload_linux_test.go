package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/test/netns"
)

// TestDrainUnderLoad ends a pod as kubelet does while clients send requests: the pod leaves its
// Service, the sidecar's preStop hook runs, and then the proxy is stopped. No request may fail.
func TestDrainUnderLoad(t *testing.T) {
	t.Parallel()
	for _, mode := range []interception.Mode{interception.ModeRedirect, interception.ModeTProxy} {
		t.Run(string(mode), func(t *testing.T) {
			p := envoyPod(t, mode, lookForHTTP)
			l := &load{pod: p, first: netip.AddrPortFrom(netns.PodIPv4, webPort), second: netip.AddrPortFrom(netns.OutsideIPv4, webPort)}
			serveLoad(t, p.Pod, l.first, &l.ofFirst)
			serveLoad(t, p.Outside, l.second, &l.ofSecond)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			clients := l.start(ctx)
			waitFor(t, func() bool { return l.ofFirst.Load() > 200 })
			l.moved.Store(true)
			hook := initContainer(t, p.Manifest, podplan.ProxyContainerName).Lifecycle.PreStop.Exec.Command
			if err := p.Exec(t.Context(), hook); err != nil {
				t.Fatalf("preStop: %v", err)
			}
			before := l.ofSecond.Load()
			if err := p.Proxy.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			_ = p.Proxy.Wait()
			waitFor(t, func() bool { return l.ofSecond.Load() > before+200 })
			stop()
			clients.Wait()
			t.Logf("%d requests answered by the pod, %d by the other", l.ofFirst.Load(), l.ofSecond.Load())
			for _, failure := range l.failures {
				t.Errorf("a request failed: %s", failure)
			}
		})
	}
}

func waitFor(t *testing.T, what func() bool) {
	t.Helper()
	for deadline := time.Now().Add(answerTime); !what(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the clients get nowhere")
		}
	}
}

// load is a Service with two pods, and its clients.
type load struct {
	pod               *pod
	first, second     netip.AddrPort
	moved             atomic.Bool // new connections go to the second
	ofFirst, ofSecond atomic.Int64

	mu       sync.Mutex
	failures []string
}

// serveLoad answers requests, some of them late.
func serveLoad(t *testing.T, ns *netns.NS, at netip.AddrPort, count *atomic.Int64) {
	t.Helper()
	listener, err := ns.ListenTCP(at, netns.ListenOptions{Identity: appIdentity})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: answerTime, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/late" {
			time.Sleep(100 * time.Millisecond)
		}
		count.Add(1)
		fmt.Fprintln(w, "answered")
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
}

// start starts clients that keep their connections, clients that open one for each request, and
// clients whose requests take time.
func (l *load) start(ctx context.Context) *sync.WaitGroup {
	var clients sync.WaitGroup
	for i := range 12 {
		transport := &http.Transport{DialContext: l.dial, DisableKeepAlives: i%3 == 1}
		path := "/"
		if i%3 == 2 {
			path = "/late"
		}
		clients.Go(func() {
			defer transport.CloseIdleConnections()
			for ctx.Err() == nil {
				if err := post(ctx, &http.Client{Transport: transport}, path); err != nil && ctx.Err() == nil {
					l.mu.Lock()
					l.failures = append(l.failures, fmt.Sprintf("%s: %v", path, err))
					l.mu.Unlock()
				}
			}
		})
	}
	return &clients
}

// dial connects to the Service's current endpoint.
func (l *load) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	to := l.first
	if l.moved.Load() {
		to = l.second
	}
	return l.pod.Outside.Dial(ctx, "tcp", to, netns.DialOptions{Source: netns.OutsideIPv4, Timeout: answerTime})
}

// post sends a request that Go's client does not repeat, since it is not idempotent.
func post(ctx context.Context, client *http.Client, path string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://service"+path, http.NoBody)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", response.Status)
	}
	return nil
}
