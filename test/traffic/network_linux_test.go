package traffic

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/test/container"
	"github.com/shunt-dev/shunt/test/netns"
)

// runFolder holds what is made once for a run. Every user may walk through it:
// servers run as users of their own.
var runFolder string

func TestMain(m *testing.M) {
	container.Main() // this program again, where a test has it become a container
	var err error
	if runFolder, err = os.MkdirTemp("", "shunt-traffic-"); err == nil {
		err = os.Chmod(runFolder, 0o755) //nolint:gosec // for servers of other users
	}
	if err == nil {
		err = writeUsers()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(runFolder)
	os.Exit(code)
}

// shuntInit is the program of the init container, built once as it ships.
var shuntInit = sync.OnceValues(func() (string, error) { return container.BuildShuntInit(runFolder) })

// program returns the path of a program that a variable names. Without one the
// test is skipped, but in CI it fails.
func program(t *testing.T, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path != "" {
		return path
	}
	reason := variable + " names no program; run the suite by `make test-traffic`"
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
	return ""
}

// direct is in place of an interception mode where nothing intercepts.
const direct interception.Mode = "direct"

// networks are compared: the first with each of the others.
var networks = []interception.Mode{direct, interception.ModeRedirect, interception.ModeTProxy}

// network is a pod and the host outside, without a proxy or with one.
type network struct {
	*netns.Lab
	mode     interception.Mode
	injected *corev1.Pod
	node     container.Node
	proxy    *container.Process
}

// newNetwork makes a network, and in it starts an injected pod: its init
// containers one after the other, the proxy until its startup probe passes.
func newNetwork(t *testing.T, mode interception.Mode) *network {
	t.Helper()
	netns.Require(t, "iptables-nft")
	lab, err := netns.NewLab()
	if err != nil {
		t.Fatal(err)
	}
	n := &network{Lab: lab, mode: mode}
	t.Cleanup(func() { n.close(t) })
	// Addresses for programs: a client is not told where to come from, and a
	// server may want to bind its own.
	for addr, device := range map[netip.Addr]string{
		netns.OutsideIPv4: "eth0", netns.OutsideIPv6: "eth0", serverIPv4: "lo", serverIPv6: "lo",
	} {
		if err := addAddress(lab.Outside, addr, device); err != nil {
			t.Fatal(err)
		}
	}
	if mode != direct {
		n.inject(t)
	}
	return n
}

func addAddress(ns *netns.NS, addr netip.Addr, device string) error {
	link, err := ns.Netlink().LinkByName(device)
	if err != nil {
		return fmt.Errorf("finding %s of %s: %w", device, ns.Name(), err)
	}
	address, err := netlink.ParseAddr(netip.PrefixFrom(addr, addr.BitLen()).String())
	if err != nil {
		return err
	}
	address.Flags = syscall.IFA_F_NODAD
	if err := ns.Netlink().AddrAdd(link, address); err != nil {
		return fmt.Errorf("adding %s to %s of %s: %w", addr, device, ns.Name(), err)
	}
	return nil
}

// inject starts the proxy of a pod that has the default configuration.
func (n *network) inject(t *testing.T) {
	t.Helper()
	result := inject.Inject(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "echo", Namespace: "demo", Labels: map[string]string{inject.InjectKey: "true"},
			Annotations: map[string]string{inject.InterceptionModeKey: string(n.mode)},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}, inject.Namespace{Name: "demo"}, inject.DefaultConfig())
	if !result.Inject {
		t.Fatalf("the pod was not injected: %s %v", result.Reason, result.Errors)
	}
	n.injected = result.Pod
	bin, err := shuntInit()
	if err != nil {
		t.Fatal(err)
	}
	n.node = container.Node{
		Programs: map[string]string{"": bin, "envoy": program(t, "ENVOY")},
		PodIPs:   []netip.Addr{netns.PodIPv4, netns.PodIPv6}, EmptyDirs: t.TempDir(),
	}
	if security := n.injected.Spec.SecurityContext; security != nil {
		for _, s := range security.Sysctls {
			if err := n.Pod.Sysctl(strings.ReplaceAll(s.Name, ".", "/"), s.Value); err != nil {
				t.Fatalf("sysctl %s: %v", s.Name, err)
			}
		}
	}
	for _, c := range n.injected.Spec.InitContainers {
		n.run(t, c)
	}
}

// startTime is what a program may take to start on a busy machine.
const startTime = 60 * time.Second

// run runs an init container to its end, or starts one that goes on running.
func (n *network) run(t *testing.T, c corev1.Container) {
	t.Helper()
	made, err := container.New(n.injected, c, n.node)
	if err != nil {
		t.Fatalf("container %s: %v", c.Name, err)
	}
	process, err := made.Start(t.Context(), n.Pod)
	if err != nil {
		t.Fatalf("container %s: %v", c.Name, err)
	}
	if c.RestartPolicy == nil {
		if err := process.Wait(); err != nil {
			t.Fatalf("container %s: %v", c.Name, err)
		}
		return
	}
	n.proxy = process
	for deadline := time.Now().Add(startTime); n.probe(t, c.StartupProbe) != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("container %s does not start; it says:\n%s", c.Name, n.said())
		}
	}
}

// probe asks the proxy whether it has started, as kubelet does.
func (n *network) probe(t *testing.T, probe *corev1.Probe) error {
	t.Helper()
	if probe == nil || probe.HTTPGet == nil {
		t.Fatalf("the proxy's startup probe is not of kind httpGet: %v", probe)
	}
	_, err := n.get(t, netip.AddrPortFrom(netns.PodIPv4, uint16(probe.HTTPGet.Port.IntValue())), probe.HTTPGet.Path)
	return err
}

// said is what the proxy printed, but for its access log.
func (n *network) said() string {
	if n.proxy == nil {
		return ""
	}
	return strings.Join(n.proxy.Errors(), "\n")
}

func (n *network) close(t *testing.T) {
	if n.proxy != nil {
		_ = n.proxy.Signal(syscall.SIGKILL)
		_ = n.proxy.Wait()
	}
	if err := n.Lab.Close(); err != nil {
		t.Error(err)
	}
}

// get asks a page of the pod, from within it.
func (n *network) get(t *testing.T, at netip.AddrPort, path string) ([]byte, error) {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return n.Pod.Dial(ctx, "tcp", at, netns.DialOptions{})
		},
	}}
	response, err := client.Get(fmt.Sprintf("http://%s%s", at, path))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s%s: %s %s", at, path, response.Status, body)
	}
	return body, nil
}

// counter adds up Envoy's counters that have a name's ending.
func (n *network) counter(t *testing.T, name string) int {
	t.Helper()
	admin := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), interception.AdminPort)
	text, err := n.get(t, admin, "/stats?format=json&filter="+name+"$")
	var stats struct {
		Stats []struct {
			Name  string
			Value int
		}
	}
	if err == nil {
		err = json.Unmarshal(text, &stats)
	}
	if err != nil {
		t.Fatalf("the proxy's counters %s: %v", name, err)
	}
	if len(stats.Stats) == 0 {
		t.Fatalf("the proxy has no counter %s", name)
	}
	total := 0
	for _, s := range stats.Stats {
		total += s.Value
	}
	return total
}

// carried is how many connections the proxy has opened to servers.
func (n *network) carried(t *testing.T) int {
	t.Helper()
	if n.mode == direct {
		return 0
	}
	return n.counter(t, "upstream_cx_total")
}
