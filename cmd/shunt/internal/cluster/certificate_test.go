package cluster

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/check"
)

// apiServer forwards ports of one pod, which are those of a server of the
// test, over SPDY; and it has one Secret.
type apiServer struct {
	pod     string // host:port
	debug   string // host:port of its port 6060
	refused atomic.Int32
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/api/v1/namespaces/shunt-system/pods/webhook-1/portforward":
		if r.Method != http.MethodPost {
			a.refused.Add(1)
			http.Error(w, "no websockets here", http.StatusBadRequest)
			return
		}
		a.forward(w, r)
	case "/api/v1/namespaces/shunt-system/secrets/cert":
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"apiVersion": "v1", "kind": "Secret", "data": map[string][]byte{corev1.TLSCertKey: []byte("of the Secret")},
		})
	default:
		http.NotFound(w, r)
	}
}

func (a *apiServer) forward(w http.ResponseWriter, r *http.Request) {
	const protocol = "portforward.k8s.io"
	if _, err := httpstream.Handshake(r, w, []string{protocol}); err != nil {
		return
	}
	streams := make(chan httpstream.Stream)
	connection := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, _ <-chan struct{}) error {
		go func() { streams <- stream }()
		return nil
	})
	if connection == nil {
		return
	}
	defer connection.Close()
	for {
		select {
		case stream := <-streams:
			if stream.Headers().Get(corev1.StreamType) == corev1.StreamTypeData {
				go a.serve(stream, map[string]string{"9443": a.pod, "6060": a.debug}[stream.Headers().Get(corev1.PortHeader)])
			}
		case <-connection.CloseChan():
			return
		}
	}
}

// serve joins a stream and a port of the pod.
func (a *apiServer) serve(stream httpstream.Stream, address string) {
	var dialer net.Dialer
	pod, err := dialer.DialContext(context.Background(), "tcp", address)
	if err != nil {
		_ = stream.Reset()
		return
	}
	defer pod.Close()
	go func() { _, _ = io.Copy(pod, stream) }()
	_, _ = io.Copy(stream, pod)
	_ = stream.Close()
}

func TestCertificate(t *testing.T) {
	pod := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(pod.Close)
	shown := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pod.Certificate().Raw})
	address := pod.Listener.Addr().String()
	api := &apiServer{pod: address}
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	c, err := connect(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	const name = "shunt-webhook.shunt-system.svc:443"
	of := func(pods ...string) check.Target {
		return check.Target{Name: name, Namespace: "shunt-system", Pods: pods, Port: 9443, Secret: "cert"}
	}
	for _, test := range []struct {
		name   string
		target check.Target
		want   check.Served
	}{
		{
			"a URL", check.Target{Name: address, Direct: true},
			check.Served{From: "served at " + address, Chain: shown},
		},
		{
			"a pod", of("webhook-1", "webhook-2"),
			check.Served{From: "served by Pod shunt-system/webhook-1", Chain: shown},
		},
		{
			"no pod", of(),
			check.Served{From: "in Secret shunt-system/cert (no pod of the Service is ready)", Chain: []byte("of the Secret")},
		},
		{
			"neither pod nor Secret", check.Target{Name: name, Namespace: "shunt-system"},
			check.Served{Problem: "no pod of the Service is ready"},
		},
		{"no Service", check.Target{Name: name}, check.Served{Problem: "the webhooks' Service does not exist"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, c.certificate(t.Context(), test.target)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if api.refused.Load() == 0 {
		t.Error("a websocket was not tried")
	}
}

// TestCertificateThatCannotBeHad holds that a pod that cannot be asked is no
// reason to look nowhere else, and that all that was tried is said.
func TestCertificateThatCannotBeHad(t *testing.T) {
	api := &apiServer{}
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	c, err := connect(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	target := check.Target{
		Name: "shunt-webhook.shunt-system.svc:443", Namespace: "shunt-system", Pods: []string{"webhook-2"}, Port: 9443, Secret: "cert",
	}
	got := c.certificate(t.Context(), target)
	if !strings.HasPrefix(got.From, "in Secret shunt-system/cert (asking pod webhook-2: ") || string(got.Chain) != "of the Secret" {
		t.Errorf("%+v", got)
	}
	target.Secret = "another"
	got = c.certificate(t.Context(), target)
	if !strings.HasPrefix(got.Problem, "asking pod webhook-2: ") || !strings.Contains(got.Problem, "could not find the") {
		t.Errorf("%+v", got)
	}
	// Nobody answers at a URL, and the listener is gone, so that it is said at once.
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	start := time.Now()
	got = c.certificate(t.Context(), check.Target{Name: address, Direct: true})
	if !strings.Contains(got.Problem, "refused") || time.Since(start) > patience {
		t.Errorf("after %s: %+v", time.Since(start), got)
	}
}
