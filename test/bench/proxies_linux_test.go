package bench_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/encoding/protojson"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	envoyconfig "github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/test/envoyapi"
	"github.com/shunt-dev/shunt/test/netns"
)

// proxy is a proxy that can be put between a client and an app.
type proxy struct {
	name string
	// start starts it, in a pod whose rules are of the route; or, for NONE, as
	// an explicit proxy of the app, which listens on explicitPort.
	start func(b *testing.B, n network, r route) (pid int)
}

// explicitPort is where an explicit proxy is asked. It is not the port of the
// inbound listener, which gives connections to itself to the black hole.
const explicitPort = 9090

var proxies = []proxy{
	{name: "Envoy", start: startEnvoy},
	{name: "HAProxy", start: startHAProxy},
}

// identity is who a proxy runs as: in TPROXY as root, because a container's
// added capabilities are root's alone.
func identity(mode interception.Mode) process {
	p := process{cpu: proxyCPU, uid: 1337, gid: 1337}
	if mode == interception.ModeTProxy {
		p.uid = 0
	}
	return p
}

// startEnvoy runs the sidecar as the injector writes it, with one thread.
func startEnvoy(b *testing.B, n network, r route) int {
	b.Helper()
	args := slices.Clone(sidecar(b, r.mode).Args)
	set := func(flag, value string) {
		i := slices.Index(args, flag)
		if i < 0 || i+1 == len(args) {
			b.Fatalf("the injected sidecar has no argument %s", flag)
		}
		args[i+1] = value
	}
	set("--concurrency", "1")
	set("--service-node", "bench")
	spec := interception.Default()
	spec.NoConntrack = r.noConntrack
	text := string(envoyconfig.Bootstrap(r.mode, spec, envoyconfig.DefaultSettings(),
		envoyconfig.Host{IPv6: true, BindToLoopback: true}))
	if r.mode == interception.ModeNone {
		text = explicitBootstrap(b, text)
	}
	i := slices.Index(args, "--config-path")
	args = slices.Replace(args, i, i+2, "--config-yaml", text)
	p := identity(r.mode)
	p.files = []*os.File{openPath(b, os.Getenv("ENVOY"))}
	return p.start(b, n.pod, append([]string{"/proc/self/fd/3"}, args...)...)
}

// injected returns the app's pod as the injector makes it.
func injected(b *testing.B, mode interception.Mode) *corev1.Pod {
	b.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "echo", Namespace: "demo",
			Labels:      map[string]string{annotation.InjectKey: "true"},
			Annotations: map[string]string{annotation.InterceptionModeKey: string(mode)},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	result := inject.Inject(pod, annotation.Namespace{Name: "demo"}, config.Default())
	if !result.Inject {
		b.Fatalf("the pod was not injected: %s %v", result.Reason, result.Errors)
	}
	return result.Pod
}

// sidecar returns the container that the injector makes of Envoy.
func sidecar(b *testing.B, mode interception.Mode) corev1.Container {
	b.Helper()
	containers := injected(b, mode).Spec.InitContainers
	i := slices.IndexFunc(containers, func(c corev1.Container) bool { return c.Name == podplan.ProxyContainerName })
	if i < 0 {
		b.Fatal("the injected pod has no proxy")
	}
	return containers[i]
}

// setSysctls does what kubelet does with the sysctls that the injector writes.
func (n network) setSysctls(b *testing.B, mode interception.Mode) {
	b.Helper()
	security := injected(b, mode).Spec.SecurityContext
	if security == nil {
		return
	}
	for _, s := range security.Sysctls {
		if err := n.pod.Sysctl(strings.ReplaceAll(s.Name, ".", "/"), s.Value); err != nil {
			b.Fatal(err)
		}
	}
}

// explicitBootstrap changes a bootstrap where an explicit proxy differs: the
// inbound listener is asked by its own address, and the clusters behind it
// have a fixed one. Filters stay what they are.
func explicitBootstrap(b *testing.B, text string) string {
	b.Helper()
	made, err := envoyapi.Parse([]byte(text))
	if err != nil {
		b.Fatal(err)
	}
	changed := 0
	for _, l := range made.StaticResources.Listeners {
		if l.Name == "virtualInbound" {
			l.Address = socketAddress("0.0.0.0", explicitPort)
			changed++
		}
	}
	for _, c := range made.StaticResources.Clusters {
		if !strings.HasPrefix(c.Name, "InboundPassthroughClusterIpv4") {
			continue
		}
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
		c.LbPolicy, c.UpstreamBindConfig = clusterv3.Cluster_ROUND_ROBIN, nil
		c.LoadAssignment = &endpointv3.ClusterLoadAssignment{
			ClusterName: c.Name,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
					Endpoint: &endpointv3.Endpoint{Address: socketAddress(netns.PodIPv4.String(), appPort)},
				},
			}}}},
		}
		changed++
	}
	if changed < 2 {
		b.Fatalf("the bootstrap has no virtualInbound with its cluster:\n%s", text)
	}
	out, err := protojson.Marshal(made)
	if err != nil {
		b.Fatal(err)
	}
	return string(out)
}

func socketAddress(host string, port int) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

// haproxySample is the configuration that ships, of HAProxy as the sidecar.
const haproxySample = "../../config/samples/haproxy/haproxy.cfg"

// startHAProxy runs the sample, with one thread.
func startHAProxy(b *testing.B, n network, r route) int {
	b.Helper()
	text, err := os.ReadFile(haproxySample)
	if err != nil {
		b.Fatal(err)
	}
	config := string(text)
	replace := func(what, with string) {
		if !strings.Contains(config, what) {
			b.Fatalf("%s has no %q", haproxySample, what)
		}
		config = strings.ReplaceAll(config, what, with)
	}
	replace("nbthread 2", "nbthread 1")
	port := interception.DefaultInboundPort
	if r.mode == interception.ModeNone {
		port = explicitPort
		replace(`{ dst_port "${SHUNT_INBOUND_PORT}" }`, "{ dst_port 1 }") // nobody goes there
		replace("option transparent", fmt.Sprintf("server app %s:%d", netns.PodIPv4, appPort))
	}
	p := identity(r.mode)
	p.files = []*os.File{openFile(b, "haproxy.cfg", config)}
	p.env = []string{
		"SHUNT_INTERCEPTION_MODE=" + string(r.mode), fmt.Sprintf("SHUNT_INBOUND_PORT=%d", port),
		fmt.Sprintf("SHUNT_OUTBOUND_PORT=%d", interception.DefaultOutboundPort),
		fmt.Sprintf("SHUNT_HEALTH_PORT=%d", interception.HealthPort), fmt.Sprintf("SHUNT_METRICS_PORT=%d", interception.MetricsPort),
		"SHUNT_INBOUND_SOURCE_IPV4=127.0.0.6",
	}
	return p.start(b, n.pod, "haproxy", "-db", "-f", "/proc/self/fd/3")
}
