package proxy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/test/container"
	"github.com/shunt-dev/shunt/test/netns"
)

// pod is a running injected pod: its namespace with rules, and its proxy.
type pod struct {
	*container.InjectedPod
	kind string // envoy or haproxy
}

// newPod injects a pod. Keys are its annotations; change edits the injector's configuration, if it
// is not nil.
func newPod(t *testing.T, mode interception.Mode, annotations map[string]string, change func(*config.Config)) *corev1.Pod {
	t.Helper()
	return injectPod(t, mode, annotations, change, corev1.Container{Name: "app", Image: "app"})
}

// injectPod injects a pod of these containers.
func injectPod(
	t *testing.T, mode interception.Mode, annotations map[string]string, change func(*config.Config), containers ...corev1.Container,
) *corev1.Pod {
	t.Helper()
	cfg := config.Default()
	if change != nil {
		change(&cfg)
	}
	plain := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "echo", Namespace: "demo",
			Labels:      map[string]string{annotation.InjectKey: "true"},
			Annotations: map[string]string{annotation.InterceptionModeKey: string(mode)},
		},
		Spec: corev1.PodSpec{Containers: containers},
	}
	for key, value := range annotations {
		plain.Annotations[key] = value
	}
	result := inject.Inject(plain, annotation.Namespace{Name: "demo"}, cfg)
	if !result.Inject {
		t.Fatalf("the pod was not injected: %s %v", result.Reason, result.Errors)
	}
	return result.Pod
}

// initContainer returns a pointer into the pod.
func initContainer(t *testing.T, pod *corev1.Pod, name string) *corev1.Container {
	t.Helper()
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.Name == name {
			return c
		}
	}
	t.Fatalf("the pod has no init container %s", name)
	return nil
}

// The pod's resolvers.
var (
	resolverIPv4 = netip.MustParseAddr("10.0.0.53")
	resolverIPv6 = netip.MustParseAddr("fd00::53")
)

// startPod starts an injected pod: its sysctls, then its init containers one after the other, the
// proxy until it is ready. programs stand in for the proxy's image.
func startPod(t *testing.T, injected *corev1.Pod, programs, volumes map[string]string) *pod {
	t.Helper()
	p, err := startPodOn(t, injected, container.Node{Programs: programs, Volumes: volumes}, resolverIPv4, resolverIPv6)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// startPodOn starts a pod on a node, with these resolvers. Its error is that of
// an init container.
func startPodOn(t *testing.T, injected *corev1.Pod, node container.Node, resolvers ...netip.Addr) (*pod, error) {
	t.Helper()
	netns.Require(t, "iptables-nft")
	lab, err := netns.NewLab()
	if err != nil {
		t.Fatal(err)
	}
	p := &pod{InjectedPod: &container.InjectedPod{Lab: lab}}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	programs := map[string]string{"": buildShuntInit(t)}
	maps.Copy(programs, node.Programs)
	node.Programs = programs
	node.PodIPs, node.HostIP = []netip.Addr{netns.PodIPv4, netns.PodIPv6}, cmp.Or(node.HostIP, netns.OutsideIPv4.String())
	node.EmptyDirs, node.ResolvConf = t.TempDir(), filepath.Join(t.TempDir(), "resolv.conf")
	var nameservers strings.Builder
	for _, addr := range resolvers {
		fmt.Fprintln(&nameservers, "nameserver", addr)
	}
	if err := os.WriteFile(node.ResolvConf, []byte(nameservers.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	p.InjectedPod, err = container.StartPod(t.Context(), lab, injected, node)
	return p, err
}

// lookForHTTP makes Envoy detect HTTP on all ports.
var lookForHTTP = map[string]string{annotation.ProtocolDetectionKey: "all"}

func envoyIn(mode interception.Mode) func(*testing.T) *pod {
	return func(t *testing.T) *pod { return envoyPod(t, mode, lookForHTTP) }
}

func untrackedEnvoy(t *testing.T) *pod { return untrackedPod(t, lookForHTTP) }

func haproxyIn(mode interception.Mode) func(*testing.T) *pod {
	return func(t *testing.T) *pod { return haproxyPod(t, mode) }
}

// envoyPod starts a pod with Envoy.
func envoyPod(t *testing.T, mode interception.Mode, annotations map[string]string) *pod {
	t.Helper()
	p := startPod(t, newPod(t, mode, annotations, nil), map[string]string{envoy: envoyBinary(t)}, nil)
	p.kind = envoy
	return p
}

// haproxySample is the sample's folder.
const haproxySample = "../../config/samples/haproxy"

// haproxyPod starts a pod with HAProxy, as in the sample.
func haproxyPod(t *testing.T, mode interception.Mode) *pod {
	t.Helper()
	return haproxyOf(t, mode, nil, haproxyFolder(t), func(*corev1.Pod) {})
}

func haproxyFolder(t *testing.T) string {
	t.Helper()
	folder, err := filepath.Abs(haproxySample)
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

// haproxyConfig returns the sample's configuration of the injector, and its volume with the
// haproxy.cfg of a folder.
func haproxyConfig(t *testing.T, folder string) (change func(*config.Config), volumes map[string]string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(haproxySample, "injector", "injector.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := inject.ParseConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	// Its one volume is of the ConfigMap that holds haproxy.cfg.
	return func(c *config.Config) { *c = cfg }, map[string]string{cfg.Sidecar.Volumes[0].Name: folder}
}

// haproxyOf starts a pod with HAProxy, and the haproxy.cfg of a folder.
func haproxyOf(
	t *testing.T, mode interception.Mode, annotations map[string]string, folder string, change func(*corev1.Pod),
) *pod {
	t.Helper()
	cfg, volumes := haproxyConfig(t, folder)
	injected := newPod(t, mode, annotations, cfg)
	change(injected)
	p := startPod(t, injected, map[string]string{haproxy: haproxyBinary(t)}, volumes)
	p.kind = haproxy
	return p
}

// haproxyBinary returns the path of HAProxy. Without it the test is skipped; with CI=true it fails.
func haproxyBinary(t *testing.T) string {
	t.Helper()
	netns.Require(t, haproxy)
	path, err := exec.LookPath(haproxy)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Programs that serve as proxies, and their names as commands.
const (
	envoy   = "envoy"
	haproxy = "haproxy"
)
