package traffic

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/test/container"
	"github.com/shunt-dev/shunt/test/netns"
)

// runFolder holds what is made once for a run. Every user can reach it: servers run as users of
// their own.
var runFolder string

func TestMain(m *testing.M) {
	container.Main() // this program again, if a test runs it as a container
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

// shuntInit is the init container's program, built once as it ships.
var shuntInit = sync.OnceValues(func() (string, error) { return container.BuildShuntInit(runFolder) })

// program returns the path of a program from an environment variable. Without it the test is
// skipped; with CI=true it fails.
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

// direct replaces an interception mode where nothing is intercepted.
const direct interception.Mode = "direct"

// untracked is TPROXY without conntrack.
const untracked interception.Mode = "TPROXY without conntrack"

// networks are compared: the first with each of the others.
var networks = []interception.Mode{direct, interception.ModeRedirect, interception.ModeTProxy, untracked}

// network is a pod and the host outside, without a proxy or with one.
type network struct {
	*container.InjectedPod
	mode interception.Mode
}

// newNetwork makes a network, and starts an injected pod in it.
func newNetwork(t *testing.T, mode interception.Mode) *network {
	t.Helper()
	netns.Require(t, "iptables-nft")
	lab, err := netns.NewLab()
	if err != nil {
		t.Fatal(err)
	}
	n := &network{InjectedPod: &container.InjectedPod{Lab: lab}, mode: mode}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	// Addresses for programs: a client does not choose its source, and a server may bind its own
	// address.
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

// inject starts the proxy of a pod with the default configuration, and a counter more.
func (n *network) inject(t *testing.T) {
	t.Helper()
	cfg, mode := config.Default(), n.mode
	if n.mode == untracked {
		cfg.InterceptFrom, mode = config.InterceptFromNode, interception.ModeTProxy
	}
	result := inject.Inject(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "echo", Namespace: "demo", Labels: map[string]string{annotation.InjectKey: "true"},
			Annotations: map[string]string{
				annotation.InterceptionModeKey: string(mode),
				// A trial waits until the proxy holds bytes.
				annotation.ProxyConfigKey: "proxyStatsMatcher: {inclusionSuffixes: [_cx_tx_bytes_buffered]}",
			},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}, annotation.Namespace{Name: "demo"}, cfg)
	if !result.Inject {
		t.Fatalf("the pod was not injected: %s %v", result.Reason, result.Errors)
	}
	if n.mode == untracked {
		container.SetUpItself(result.Pod)
	}
	bin, err := shuntInit()
	if err != nil {
		t.Fatal(err)
	}
	n.InjectedPod, err = container.StartPod(t.Context(), n.Lab, result.Pod, container.Node{
		Programs: map[string]string{"": bin, "envoy": program(t, "ENVOY")},
		PodIPs:   []netip.Addr{netns.PodIPv4, netns.PodIPv6}, EmptyDirs: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
}

// counter adds up Envoy's counters whose names have an ending.
func (n *network) counter(t *testing.T, name string) int {
	t.Helper()
	admin := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), interception.AdminPort)
	text, err := container.Get(t.Context(), n.Pod, netns.DialOptions{}, admin, "/stats?format=json&filter="+name+"$")
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

// carried returns the number of connections that the proxy has opened to servers.
func (n *network) carried(t *testing.T) int {
	t.Helper()
	if n.mode == direct {
		return 0
	}
	return n.counter(t, "upstream_cx_total")
}
