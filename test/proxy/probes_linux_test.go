package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/container"
	"github.com/shunt-dev/shunt/test/netns"
)

// TestProbes checks that kubelet's probes of an app behind a proxy are answered by the app: success
// if it listens, failure if not. The proxy would accept an unchanged tcpSocket probe in either
// case.
func TestProbes(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T, interception.Mode, []corev1.Container) *pod{
		envoy: probedEnvoy, haproxy: probedHAProxy,
	} {
		for _, mode := range []interception.Mode{interception.ModeRedirect, interception.ModeTProxy} {
			t.Run(fmt.Sprintf("%s/%s", name, mode), func(t *testing.T) {
				k := kubelet{start(t, mode, probed())}
				k.kind = name
				t.Run("the application is not there yet", k.wantAll(false))
				stop := serveProbes(t, k.Pod)
				t.Run("the application is there", k.wantAll(true))
				stop()
				t.Run("the application is gone", k.wantAll(false))
				t.Run("the proxy says yes", func(t *testing.T) {
					if err := k.connect(t.Context(), httpPort); err != nil {
						t.Errorf("%v; if a proxy refuses what nobody listens on, no probe needs to be rewritten", err)
					}
				})
			})
		}
	}
}

// probed returns containers with a probe each, of all kinds that a pod can have.
func probed() []corev1.Container {
	probe := func(name string, handler corev1.ProbeHandler) corev1.Container {
		return corev1.Container{
			Name: name, Image: "app", Command: []string{"true"},
			Ports:         []corev1.ContainerPort{{Name: "web", ContainerPort: int32(httpPort)}},
			LivenessProbe: &corev1.Probe{ProbeHandler: handler, TimeoutSeconds: 5},
			SecurityContext: &corev1.SecurityContext{
				RunAsUser: new(int64(1000)), RunAsGroup: new(int64(1000)), ReadOnlyRootFilesystem: new(true),
				AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			},
		}
	}
	page := func(port uint16, scheme corev1.URIScheme) corev1.ProbeHandler {
		return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/live", Port: intstr.FromInt32(int32(port)), Scheme: scheme}}
	}
	return []corev1.Container{
		probe("http", page(httpPort, corev1.URISchemeHTTP)),
		probe("https", page(tlsPort, corev1.URISchemeHTTPS)),
		probe("grpc", corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: int32(grpcPort)}}),
		probe("tcp", corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("web")}}),
		probe("tcp-of-tls", corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(int32(tlsPort))}}),
		probe("exec", corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}),
	}
}

func probedEnvoy(t *testing.T, mode interception.Mode, containers []corev1.Container) *pod {
	t.Helper()
	return startPod(t, injectPod(t, mode, nil, nil, containers...), map[string]string{envoy: envoyBinary(t), "true": "/bin/true"}, nil)
}

func probedHAProxy(t *testing.T, mode interception.Mode, containers []corev1.Container) *pod {
	t.Helper()
	cfg, volumes := haproxyConfig(t, haproxyFolder(t))
	injected := injectPod(t, mode, nil, cfg, containers...)
	return startPod(t, injected, map[string]string{haproxy: haproxyBinary(t), "true": "/bin/true"}, volumes)
}

// serveProbes answers probes in the pod until it is stopped.
func serveProbes(t *testing.T, pod *netns.NS) (stop func()) {
	t.Helper()
	certificate, _ := selfSigned(t, "app.example")
	web := &http.Server{
		ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/live" || r.UserAgent() != kubeletAgent {
				w.WriteHeader(http.StatusTeapot)
			}
		}),
	}
	calls := grpc.NewServer()
	healthv1.RegisterHealthServer(calls, health.NewServer())
	var serving sync.WaitGroup
	for _, wildcard := range netns.Wildcards {
		plain, secret := listen(t, pod, netip.AddrPortFrom(wildcard, httpPort)), listen(t, pod, netip.AddrPortFrom(wildcard, tlsPort))
		called := listen(t, pod, netip.AddrPortFrom(wildcard, grpcPort))
		serving.Go(func() { _ = web.Serve(plain) })
		serving.Go(func() { _ = web.ServeTLS(secret, "", "") })
		serving.Go(func() { _ = calls.Serve(called) })
	}
	stop = sync.OnceFunc(func() {
		_ = web.Close()
		calls.Stop()
		serving.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// kubelet probes the containers of a pod as kubelet does.
type kubelet struct{ *pod }

// kubeletAgent is its User-Agent.
const kubeletAgent = "kube-probe/1.36"

// wantAll runs the probes of all containers. A probe that runs a command of the container's own
// succeeds in any case.
func (k kubelet) wantAll(alive bool) func(*testing.T) {
	return func(t *testing.T) {
		for _, c := range k.Manifest.Spec.Containers {
			want := alive || c.Name == "exec"
			if err := k.ask(t, c); (err == nil) != want {
				t.Errorf("%s: %v, want success: %v", c.Name, err, want)
			}
		}
	}
}

func (k kubelet) ask(t *testing.T, c corev1.Container) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), answerTime)
	defer cancel()
	switch handler := c.LivenessProbe.ProbeHandler; {
	case handler.HTTPGet != nil:
		return k.each(func(addr netip.Addr) error { return k.page(ctx, addr, handler.HTTPGet) })
	case handler.GRPC != nil:
		return k.each(func(addr netip.Addr) error { return k.health(ctx, addr, uint16(handler.GRPC.Port)) })
	case handler.Exec != nil:
		made, err := container.New(k.Manifest, c, k.Node)
		if err != nil {
			return err
		}
		if made, err = made.Exec(k.Node, handler.Exec.Command); err != nil {
			return err
		}
		process, err := made.Start(ctx, k.Pod)
		if err != nil {
			return err
		}
		return process.Wait()
	default:
		t.Fatalf("%s: a probe that kubelet would not ask the application: %v", c.Name, handler)
		return nil
	}
}

// each probes the pod's first address, as kubelet does, and with Envoy also the second, as on a
// node that prefers IPv6. HAProxy does not serve it in every mode.
func (k kubelet) each(ask func(netip.Addr) error) error {
	first := ask(k.Node.PodIPs[0])
	if k.kind != envoy {
		return first
	}
	second := ask(k.Node.PodIPs[1])
	if (first == nil) != (second == nil) {
		return fmt.Errorf("the families differ: %w", errors.Join(first, second))
	}
	return first
}

func (k kubelet) page(ctx context.Context, addr netip.Addr, action *corev1.HTTPGetAction) error {
	url := fmt.Sprintf("%s://%s%s", strings.ToLower(string(action.Scheme)),
		netip.AddrPortFrom(addr, uint16(action.Port.IntValue())), action.Path)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", kubeletAgent)
	asking := client(fromOutside(k.Lab))
	asking.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // as kubelet does
	response, err := asking.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode < http.StatusOK || response.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	return nil
}

func (k kubelet) health(ctx context.Context, addr netip.Addr, port uint16) error {
	conn, err := grpc.NewClient("passthrough:///"+netip.AddrPortFrom(addr, port).String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUserAgent(kubeletAgent),
		grpc.WithContextDialer(func(ctx context.Context, to string) (net.Conn, error) {
			return fromOutside(k.Lab)(ctx, "tcp", netip.MustParseAddrPort(to), netns.DialOptions{Timeout: 2 * time.Second})
		}))
	if err != nil {
		return err
	}
	defer conn.Close()
	answer, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
	if err == nil && answer.Status != healthv1.HealthCheckResponse_SERVING {
		err = fmt.Errorf("status %s", answer.Status)
	}
	return err
}

// connect connects like a tcpSocket probe.
func (k kubelet) connect(ctx context.Context, port uint16) error {
	return k.each(func(addr netip.Addr) error {
		conn, err := fromOutside(k.Lab)(ctx, "tcp", netip.AddrPortFrom(addr, port), netns.DialOptions{Timeout: 2 * time.Second})
		if err == nil {
			err = conn.Close()
		}
		return err
	})
}
