package proxy

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	envoyconfig "github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/test/container"
	"github.com/shunt-dev/shunt/test/netns"
)

const (
	probedPort uint16 = 9087
	otherPort  uint16 = 9088 // serves the same, and has no probe
	deadPort   uint16 = 9089 // has a probe, and nobody listens there
)

// sent is a request as it goes over the wire, and where it comes from.
type sent struct {
	name   string
	from   netip.Addr
	port   uint16
	method string
	path   string
	agent  string
}

// TestProbesAreNotLogged checks that kubelet's probes stay out of the log while they succeed, and
// which other requests do.
func TestProbesAreNotLogged(t *testing.T) {
	t.Parallel()
	node := map[bool]netip.Addr{true: netns.OutsideIPv4, false: netns.OutsideIPv6}
	for _, mode := range []interception.Mode{interception.ModeRedirect, interception.ModeTProxy} {
		for _, ipv4 := range []bool{true, false} {
			kubelet := sent{from: node[ipv4], port: probedPort, method: "GET", path: "/live?x=1", agent: kubeletAgent}
			like := func(name string, change func(*sent)) sent {
				s := kubelet
				s.name = name
				change(&s)
				return s
			}
			requests := []sent{
				like("a probe", func(*sent) {}),
				like("a probe of a newer kubelet", func(s *sent) { s.agent = "kube-probe/1.100+" }),
				like("a probe that fails", func(s *sent) { s.path = "/status/500" }),
				like("a probe that nobody answers", func(s *sent) { s.port = deadPort }),
				like("another path", func(s *sent) { s.path = "/live?x=1&secret" }),
				like("another method", func(s *sent) { s.method = "POST" }),
				like("another agent", func(s *sent) { s.agent = "curl/8.14.1" }),
				like("another client", func(s *sent) { s.from = another(s.from) }),
				like("another port", func(s *sent) { s.port = otherPort }),
			}
			for name, kind := range map[string]struct {
				detection string
				log       envoyconfig.AccessLog
				want      []string // that are not logged
			}{
				// Envoy does not know what is said: a request of the node that is as long, or up to three bytes longer, cannot be told.
				"connections": {"none", envoyconfig.AccessLogTraffic,
					[]string{"a probe", "a probe of a newer kubelet", "a probe that fails", "another method"}},
				// Kubelet's address is not asked for.
				"requests": {"all", envoyconfig.AccessLogTraffic,
					[]string{"a probe", "a probe of a newer kubelet", "another client", "another port"}},
				"all connections": {"none", envoyconfig.AccessLogAll, nil},
				"all requests":    {"all", envoyconfig.AccessLogAll, nil},
			} {
				t.Run(fmt.Sprintf("%s/%s/IPv4=%t", mode, name, ipv4), func(t *testing.T) {
					t.Parallel()
					p := probedPod(t, mode, kind.detection, kind.log, node[ipv4])
					if diff := cmp.Diff(kind.want, p.unlogged(t, requests, ipv4)); diff != "" {
						t.Errorf("what is not logged (-want +got):\n%s", diff)
					}
				})
			}
		}
	}
}

// another returns the address next to one.
func another(addr netip.Addr) netip.Addr { return addr.Next() }

// probedPod starts a pod with probes on a node with this address.
func probedPod(t *testing.T, mode interception.Mode, detection string, log envoyconfig.AccessLog, node netip.Addr) *pod {
	t.Helper()
	probe := func(port uint16, path string) *corev1.Probe {
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Path: path, Port: intstr.FromInt32(int32(port)),
		}}}
	}
	injected := injectPod(t, mode, map[string]string{annotation.ProtocolDetectionKey: detection},
		func(cfg *config.Config) { cfg.AccessLog = log }, corev1.Container{
			Name: "app", Image: "app", LivenessProbe: probe(probedPort, "live?x=1"), ReadinessProbe: probe(probedPort, "/status/500"),
			StartupProbe: probe(deadPort, "/live?x=1"),
		})
	p, err := startPodOn(t, injected, container.Node{
		Programs: map[string]string{envoy: envoyBinary(t)}, HostIP: node.String(),
	}, resolverIPv4)
	if err != nil {
		t.Fatal(err)
	}
	p.kind = envoy
	return p
}

// unlogged sends the requests, and returns the names of those that the log does not have.
func (p *pod) unlogged(t *testing.T, requests []sent, ipv4 bool) []string {
	t.Helper()
	direction, to := inbound4, netns.PodIPv4
	if !ipv4 {
		direction, to = inbound6, netns.PodIPv6
	}
	w := &way{direction: direction, pod: p, system: interception.SystemRedirect}
	for _, port := range []uint16{probedPort, otherPort} {
		w.serveHTTP(t, port, &http.Server{Handler: http.HandlerFunc(tell)})
	}
	clients := map[string]string{} // their addresses, by the request's name
	for _, s := range requests {
		conn, err := p.Lab.Outside.Dial(t.Context(), "tcp", netip.AddrPortFrom(to, s.port), netns.DialOptions{Source: s.from})
		if err != nil {
			t.Fatal(err)
		}
		clients[s.name] = conn.LocalAddr().String()
		_ = conn.SetDeadline(time.Now().Add(answerTime))
		if _, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: %s\r\nAccept: */*\r\nConnection: close\r\n\r\n",
			s.method, s.path, netip.AddrPortFrom(to, s.port), s.agent); err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(conn)
		if s.port != deadPort && !strings.HasPrefix(string(answer), "HTTP/1.1 ") {
			t.Fatalf("%s: %q", s.name, answer)
		}
		_ = conn.Close()
	}
	if err := p.Proxy.Stop(syscall.SIGTERM, answerTime); err != nil { // it flushes its log
		t.Fatal(err)
	}
	var missing []string
	for _, s := range requests {
		if !slices.ContainsFunc(p.logLines(), logLine{"downstream_remote_address": clients[s.name]}.saidBy) {
			missing = append(missing, s.name)
		}
	}
	return missing
}
