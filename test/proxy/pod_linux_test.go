package proxy

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/test/container"
	"github.com/shunt-dev/shunt/test/netns"
)

// pod is an injected pod at work, with what a kubelet has made of it: its
// namespace with rules in it, and its proxy.
type pod struct {
	*netns.Lab
	kind     string // envoy or haproxy
	injected *corev1.Pod
	node     container.Node
	proxy    *container.Process
	sidecar  container.Container
}

// newPod injects a pod. Keys are its annotations, change is what the
// injector's configuration has of its own; nil for nothing.
func newPod(t *testing.T, mode interception.Mode, annotations map[string]string, change func(*inject.Config)) *corev1.Pod {
	t.Helper()
	return injectPod(t, mode, annotations, change, corev1.Container{Name: "app", Image: "app"})
}

// injectPod injects a pod of these containers.
func injectPod(
	t *testing.T, mode interception.Mode, annotations map[string]string, change func(*inject.Config), containers ...corev1.Container,
) *corev1.Pod {
	t.Helper()
	cfg := inject.DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	plain := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "echo", Namespace: "demo",
			Labels:      map[string]string{inject.InjectKey: "true"},
			Annotations: map[string]string{inject.InterceptionModeKey: string(mode)},
		},
		Spec: corev1.PodSpec{Containers: containers},
	}
	for key, value := range annotations {
		plain.Annotations[key] = value
	}
	result := inject.Inject(plain, inject.Namespace{Name: "demo"}, cfg)
	if !result.Inject {
		t.Fatalf("the pod was not injected: %s %v", result.Reason, result.Errors)
	}
	return result.Pod
}

// initContainer is a pointer into the pod.
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

// startPod starts an injected pod: its sysctls, then its init containers one
// after the other, the proxy until its startup probe passes. programs stand in
// for the proxy's image.
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
	p := &pod{Lab: lab, injected: injected}
	t.Cleanup(func() { p.close(t) })
	p.node = node
	p.node.Programs = map[string]string{"": buildShuntInit(t)}
	maps.Copy(p.node.Programs, node.Programs)
	p.node.PodIPs = []netip.Addr{netns.PodIPv4, netns.PodIPv6}
	p.node.EmptyDirs, p.node.ResolvConf = t.TempDir(), filepath.Join(t.TempDir(), "resolv.conf")
	var nameservers strings.Builder
	for _, addr := range resolvers {
		fmt.Fprintln(&nameservers, "nameserver", addr)
	}
	if err := os.WriteFile(p.node.ResolvConf, []byte(nameservers.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if security := injected.Spec.SecurityContext; security != nil {
		for _, s := range security.Sysctls {
			if err := lab.Pod.Sysctl(strings.ReplaceAll(s.Name, ".", "/"), s.Value); err != nil {
				t.Fatalf("sysctl %s: %v", s.Name, err)
			}
		}
	}
	for _, c := range injected.Spec.InitContainers {
		if err := p.run(t, c); err != nil {
			return nil, fmt.Errorf("container %s: %w", c.Name, err)
		}
	}
	return p, nil
}

// run runs an init container to its end, or starts one that goes on running.
func (p *pod) run(t *testing.T, c corev1.Container) error {
	t.Helper()
	made, err := container.New(p.injected, c, p.node)
	if err != nil {
		return err
	}
	process, err := made.Start(t.Context(), p.Pod)
	if err != nil {
		return err
	}
	if c.RestartPolicy == nil {
		return process.Wait()
	}
	p.proxy, p.sidecar = process, made
	var said error
	for deadline := time.Now().Add(startTime); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if said = p.probe(t, c.StartupProbe); said == nil {
			return nil
		}
	}
	return fmt.Errorf("its startup probe says %w after %s; it says:\n%s", said, startTime, p.said())
}

// probe asks as kubelet does: the pod's first address, or in the container.
func (p *pod) probe(t *testing.T, probe *corev1.Probe) error {
	t.Helper()
	switch {
	case probe == nil:
		return nil
	case probe.Exec != nil:
		return p.exec(t.Context(), probe.Exec.Command)
	case probe.HTTPGet != nil:
		status, said := get(client(fromOutside(p.Lab)), p.node.PodIPs[0], uint16(probe.HTTPGet.Port.IntValue()), probe.HTTPGet.Path)
		if status != http.StatusOK {
			return fmt.Errorf("%d %s", status, said)
		}
		return nil
	default:
		return fmt.Errorf("a probe of another kind than exec and httpGet: %v", probe)
	}
}

// startTime is what a proxy may take to start on a busy machine.
const startTime = 30 * time.Second

// said is all that the proxy printed.
func (p *pod) said() string {
	return strings.Join(append(p.proxy.Errors(), p.proxy.Output()...), "\n")
}

// exec runs a command in the proxy's container, as kubelet runs a hook.
func (p *pod) exec(ctx context.Context, command []string) error {
	c, err := p.sidecar.Exec(p.node, command)
	if err != nil {
		return err
	}
	process, err := c.Start(ctx, p.Pod)
	if err != nil {
		return err
	}
	return process.Wait()
}

func (p *pod) close(t *testing.T) {
	if p.proxy != nil {
		_ = p.proxy.Signal(syscall.SIGKILL)
		_ = p.proxy.Wait()
	}
	closeLab(t, p.Lab)
}

// lookForHTTP has Envoy look for HTTP on all ports.
var lookForHTTP = map[string]string{inject.ProtocolDetectionKey: "all"}

func envoyIn(mode interception.Mode) func(*testing.T) *pod {
	return func(t *testing.T) *pod { return envoyPod(t, mode, lookForHTTP) }
}

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

// haproxyPod starts a pod with HAProxy, as the sample has it.
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

// haproxyConfig is the sample's configuration of the injector, and its volume
// with the haproxy.cfg of a folder.
func haproxyConfig(t *testing.T, folder string) (change func(*inject.Config), volumes map[string]string) {
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
	return func(c *inject.Config) { *c = cfg }, map[string]string{cfg.Sidecar.Volumes[0].Name: folder}
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

// haproxyBinary returns the path of HAProxy. Without one the test is skipped,
// but in CI it fails.
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
