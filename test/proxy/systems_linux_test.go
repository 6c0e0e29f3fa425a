package proxy

import (
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	setfilterstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	setfilterstatenetworkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	corev1 "k8s.io/api/core/v1"

	envoyconfig "github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/test/container"
	"github.com/shunt-dev/shunt/test/envoyapi"
	"github.com/shunt-dev/shunt/test/netns"
)

// The systems ambient and legacy have no interception mode, so no pod gets them by injection.
// Whoever runs shunt-init --system=… writes the proxy's configuration; these are the smallest that
// work.

// variant is one of the ways in which a pod with Envoy is intercepted.
type variant struct {
	name   string
	system interception.System
	start  func(*testing.T, map[string]string) *pod // with these annotations
}

var variants = []variant{
	{"REDIRECT", interception.SystemRedirect, func(t *testing.T, annotations map[string]string) *pod {
		return envoyPod(t, interception.ModeRedirect, annotations)
	}},
	{"TPROXY", interception.SystemTProxy, func(t *testing.T, annotations map[string]string) *pod {
		return envoyPod(t, interception.ModeTProxy, annotations)
	}},
	{"TPROXY without conntrack", interception.SystemTProxy, untrackedPod},
}

// untrackedPod starts Envoy in TPROXY without conntrack, as pods of interceptFrom: node have it.
func untrackedPod(t *testing.T, annotations map[string]string) *pod {
	t.Helper()
	injected := newPod(t, interception.ModeTProxy, annotations, func(cfg *config.Config) { cfg.InterceptFrom = config.InterceptFromNode })
	if !slices.Contains(initContainer(t, injected, podplan.InitContainerName).Args, "--no-conntrack=true") {
		t.Fatal("the injector does not choose it")
	}
	container.SetUpItself(injected)
	p := startPod(t, injected, map[string]string{envoy: envoyBinary(t)}, nil)
	p.kind = envoy
	return p
}

// checkNothingTracked checks that the pod has no entry of conntrack.
func checkNothingTracked(t *testing.T, p *pod) {
	t.Helper()
	out, err := p.Pod.Command(t.Context(), "cat", "/proc/sys/net/netfilter/nf_conntrack_count").CombinedOutput()
	if count := strings.TrimSpace(string(out)); err != nil || count != "0" {
		t.Errorf("entries of conntrack: %s, %v; want 0", count, err)
	}
}

// ambientPod starts Envoy in ambient. The rules recognize the proxy only by the mark of its
// sockets, so the sockets to servers carry it too; those to the app do in TPROXY anyway.
func ambientPod(t *testing.T) *pod {
	t.Helper()
	return ownBootstrap(t, interception.ModeTProxy, interception.SystemAmbient, func(made *bootstrapv3.Bootstrap) {
		const solSocket, soMark = 1, 36
		for _, c := range made.StaticResources.Clusters {
			if strings.HasPrefix(c.Name, "PassthroughCluster") {
				c.UpstreamBindConfig = &corev3.BindConfig{SocketOptions: []*corev3.SocketOption{{
					Level: solSocket, Name: soMark, Value: &corev3.SocketOption_IntValue{IntValue: int64(interception.DefaultMark)},
					State: corev3.SocketOption_STATE_PREBIND,
				}}}
			}
		}
	})
}

// legacyPod starts Envoy in legacy. All connections come to one port, and those to the pod go on to
// loopback, which is all that the rules exclude.
func legacyPod(t *testing.T) *pod {
	t.Helper()
	return ownBootstrap(t, interception.ModeRedirect, interception.SystemLegacy, func(made *bootstrapv3.Bootstrap) {
		for _, l := range made.StaticResources.Listeners {
			switch l.Name {
			case "virtualOutbound":
				toLoopback(t, l, netns.PodIPv4, "127.0.0.1")
			case "virtualOutbound_v6":
				toLoopback(t, l, netns.PodIPv6, "[::1]")
			}
		}
	})
}

// toLoopback adds twins of a listener's filter chains, for connections to the
// pod.
func toLoopback(t *testing.T, l *listenerv3.Listener, pod netip.Addr, loopback string) {
	t.Helper()
	redirected, err := anypb.New(&setfilterstatenetworkv3.Config{OnNewConnection: []*setfilterstatev3.FilterStateValue{{
		Key: &setfilterstatev3.FilterStateValue_ObjectKey{ObjectKey: "envoy.network.transport_socket.original_dst_address"},
		Value: &setfilterstatev3.FilterStateValue_FormatString{FormatString: &corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
				Specifier: &corev3.DataSource_InlineString{InlineString: loopback + ":%DOWNSTREAM_LOCAL_PORT%"},
			}},
		}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, chain := range append(slices.Clone(l.FilterChains), l.DefaultFilterChain) {
		if chain.Name == "health" || chain.Name == "blackhole" || chain.Name == "loopback" {
			continue
		}
		twin := proto.CloneOf(chain)
		if chain == l.DefaultFilterChain {
			// If some chains name a protocol, Envoy ignores those that name none.
			twin.FilterChainMatch = &listenerv3.FilterChainMatch{TransportProtocol: "raw_buffer"}
		}
		twin.FilterChainMatch.PrefixRanges = []*corev3.CidrRange{{
			AddressPrefix: pod.String(), PrefixLen: wrapperspb.UInt32(uint32(pod.BitLen())),
		}}
		twin.Filters = append([]*listenerv3.Filter{{
			Name:       "envoy.filters.network.set_filter_state",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: redirected},
		}}, twin.Filters...)
		l.FilterChains = append(l.FilterChains, twin)
	}
}

// ownBootstrap starts a pod that was injected for a mode in another system, with a changed
// bootstrap for Envoy.
func ownBootstrap(t *testing.T, mode interception.Mode, system interception.System, change func(*bootstrapv3.Bootstrap)) *pod {
	t.Helper()
	settings := envoyconfig.DefaultSettings()
	settings.InboundHTTPPorts, settings.OutboundHTTPPorts = envoyconfig.AllPorts, envoyconfig.AllPorts
	made, err := envoyapi.Parse(envoyconfig.Bootstrap(mode, interception.DefaultFor(system), settings, envoyconfig.Host{IPv6: true}))
	if err != nil {
		t.Fatal(err)
	}
	change(made)
	changed, err := protojson.Marshal(made)
	if err != nil {
		t.Fatal(err)
	}
	injected := newPod(t, mode, nil, nil)
	sidecar := initContainer(t, injected, podplan.ProxyContainerName)
	i := slices.Index(sidecar.Args, "--config-path")
	sidecar.Args = slices.Replace(sidecar.Args, i, i+2, "--config-yaml", string(changed))
	inSystem(t, injected, system)
	p := startPod(t, injected, map[string]string{envoy: envoyBinary(t)}, nil)
	p.kind = envoy
	return p
}

// legacyHAProxy starts HAProxy in legacy. One more line sends connections to the pod on to
// loopback.
func legacyHAProxy(t *testing.T) *pod {
	t.Helper()
	const (
		port       = "\"0.0.0.0:${SHUNT_OUTBOUND_PORT}\"\n"
		toLoopback = "    tcp-request connection set-dst ipv4(127.0.0.1) if { dst \"${POD_IP}\" }\n"
	)
	sample, err := os.ReadFile(filepath.Join(haproxySample, "haproxy.cfg"))
	if err != nil {
		t.Fatal(err)
	}
	before, after, found := strings.Cut(string(sample), port)
	if !found {
		t.Fatalf("the sample does not listen on %s", port)
	}
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "haproxy.cfg"), []byte(before+port+toLoopback+after), 0o644); err != nil {
		t.Fatal(err)
	}
	return haproxyOf(t, interception.ModeRedirect, nil, folder, func(injected *corev1.Pod) {
		sidecar := initContainer(t, injected, podplan.ProxyContainerName)
		sidecar.Env = append(sidecar.Env, corev1.EnvVar{Name: "POD_IP", ValueFrom: &corev1.EnvVarSource{
			FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"},
		}})
		inSystem(t, injected, interception.SystemLegacy)
	})
}

// TestHAProxyLeavesOut checks that IPv6 that HAProxy cannot handle bypasses it if the pod says so.
func TestHAProxyLeavesOut(t *testing.T) {
	t.Parallel()
	folder, err := filepath.Abs(haproxySample)
	if err != nil {
		t.Fatal(err)
	}
	p := haproxyOf(t, interception.ModeTProxy, map[string]string{annotation.ExcludeOutboundIPRangesKey: "::/0"}, folder,
		func(*corev1.Pod) {})
	for _, d := range []direction{outbound4, outbound6} {
		w := &way{direction: d, pod: p, system: interception.SystemTProxy}
		w.serve(t, halfPort, func(conn *net.TCPConn) error {
			_, err := io.WriteString(conn, banner)
			return err
		})
		conn := w.mustDial(t, halfPort)
		if got, err := io.ReadAll(conn); err != nil || string(got) != banner {
			t.Errorf("%s: %q, %v", d, got, err)
		}
		_ = conn.Close()
	}
	within(t, "the log has the connection over IPv4", &output{}, func() bool { return len(p.logLines()) > 0 })
	if lines := p.logLines(); len(lines) != 1 || lines[0]["listener"] != "virtualOutbound" {
		t.Errorf("the log has %v, want the connection over IPv4 only", lines)
	}
}

// inSystem gives a pod's init container the arguments of another system.
func inSystem(t *testing.T, injected *corev1.Pod, system interception.System) {
	t.Helper()
	c := initContainer(t, injected, podplan.InitContainerName)
	_, opts, err := interception.ParseArgs(c.Args)
	if err != nil {
		t.Fatal(err)
	}
	spec := interception.Default()
	spec.System = system
	c.Args = interception.Args(spec, opts)
}
