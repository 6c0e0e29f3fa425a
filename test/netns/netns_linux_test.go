package netns_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/test/netns"
)

// orphanEnv makes the test binary a parent that TestKillLeavesNothing kills.
const orphanEnv = "SHUNT_NETNS_TEST_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(orphanEnv) != "" {
		if err := beParent(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// beParent starts a child in a namespace of its own, prints both, and waits to be killed.
func beParent() error {
	ns, err := netns.New("doomed")
	if err != nil {
		return err
	}
	child := ns.Command(context.Background(), "sleep", "60")
	if err := child.Start(); err != nil {
		return err
	}
	var id string
	if err := ns.Do(func() (err error) { id, err = namespaceID("thread-self"); return err }); err != nil {
		return err
	}
	fmt.Println(child.Process.Pid, id)
	return child.Wait()
}

func namespaceID(task string) (string, error) { return os.Readlink("/proc/" + task + "/ns/net") }

func TestKillLeavesNothing(t *testing.T) {
	netns.Require(t)
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), orphanEnv+"=1")
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child, id, _ := strings.Cut(strings.TrimSpace(line), " ")
	if got, err := namespaceID(child); err != nil || got != id {
		t.Fatalf("child %s is in %q (%v), want %q", child, got, err, id)
	}
	if home, _ := namespaceID("self"); home == id {
		t.Fatalf("the child is in the namespace of the test, %s", home)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	waitUntilDead(t, child)
}

func waitUntilDead(t *testing.T, pid string) {
	t.Helper()
	for range 100 {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("process %s outlived its parent by 2 s", pid)
}

func TestCloseKillsChildren(t *testing.T) {
	netns.Require(t)
	ns, err := netns.New("closing")
	if err != nil {
		t.Fatal(err)
	}
	child := ns.Command(t.Context(), "sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if err := ns.Close(); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the child ended with %v, want: killed", err)
	}
	if err := ns.Command(t.Context(), "true").Start(); err == nil {
		t.Fatal("a child was started in a closed namespace")
	}
}

func TestDoComesBack(t *testing.T) {
	netns.Require(t)
	ns := newNS(t, "there")
	home, err := namespaceID("thread-self")
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		var there string
		if err := ns.Do(func() (err error) { there, err = namespaceID("thread-self"); return err }); err != nil {
			t.Fatal(err)
		}
		if there == home {
			t.Fatalf("Do ran at home, in %s", home)
		}
		back := make(chan string)
		go func() { id, _ := namespaceID("thread-self"); back <- id }()
		if id := <-back; id != home {
			t.Fatalf("after Do a goroutine is in %s, want %s", id, home)
		}
	}
	if main, _ := namespaceID("self"); main != home {
		t.Fatalf("the main thread is in %s, want %s", main, home)
	}
	if listed, err := exec.Command("nsenter", "--net="+ns.Path(), "readlink", "/proc/self/ns/net").Output(); err != nil ||
		strings.TrimSpace(string(listed)) == home {
		t.Fatalf("Path leads to %q, %v", listed, err)
	}
}

func newNS(t *testing.T, name string) *netns.NS {
	t.Helper()
	ns, err := netns.New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	return ns
}

func newLab(t *testing.T, interfaces ...string) *netns.Lab {
	t.Helper()
	netns.Require(t, "iptables", "ip6tables")
	lab, err := netns.NewLab(interfaces...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lab.Close() })
	return lab
}

func listen(t *testing.T, ns *netns.NS, network string, at string, o netns.ListenOptions) {
	t.Helper()
	server, err := ns.Listen(network, netip.MustParseAddrPort(at), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
}

// TestLabReaches crosses a lab without rules in every direction. No port that the kernel draws in
// the pod may be one that it draws outside.
func TestLabReaches(t *testing.T) {
	lab := newLab(t, "net1", "net2")
	for _, wildcard := range []string{"0.0.0.0:7000", "[::]:7000"} {
		for _, network := range []string{"tcp", "udp"} {
			listen(t, lab.Pod, network, wildcard, netns.ListenOptions{Name: "pod"})
			listen(t, lab.Outside, network, wildcard, netns.ListenOptions{Name: "outside", Transparent: true})
		}
	}
	outside := func(source, device string) netns.DialOptions {
		return netns.DialOptions{Source: netip.MustParseAddr(source), Mark: lab.Mark(device)}
	}
	var own netns.DialOptions
	tests := []struct {
		from       *netns.NS
		to         string
		options    netns.DialOptions
		want, sees string
	}{
		{lab.Pod, "10.0.0.9:7000", own, "outside", "10.0.0.1"},
		{lab.Pod, "203.0.113.77:7000", own, "outside", "10.0.0.1"},
		{lab.Pod, "127.0.0.1:7000", own, "pod", "127.0.0.1"},
		{lab.Pod, "10.0.0.1:7000", own, "pod", "10.0.0.1"},
		{lab.Pod, "10.0.0.1:7000", netns.DialOptions{Source: netip.MustParseAddr("127.0.0.6")}, "pod", "127.0.0.6"},
		{lab.Outside, "10.0.0.1:7000", outside("10.0.0.9", "eth0"), "pod", "10.0.0.9"},
		{lab.Outside, "10.0.0.1:7000", outside("198.51.100.3", "net1"), "pod", "198.51.100.3"},
		{lab.Outside, "10.1.0.1:7000", outside("198.51.100.3", "net1"), "pod", "198.51.100.3"},
		{lab.Outside, "10.0.0.1:7000", outside("10.0.0.9", "net2"), "pod", "10.0.0.9"},
		{lab.Pod, "[fd00::9]:7000", own, "outside", "fd00::1"},
		{lab.Pod, "[2001:db8::77]:7000", own, "outside", "fd00::1"},
		{lab.Pod, "[::1]:7000", own, "pod", "::1"},
		{lab.Pod, "[fd00::1]:7000", own, "pod", "fd00::1"},
		{lab.Outside, "[fd00::1]:7000", outside("fd00::9", "eth0"), "pod", "fd00::9"},
		{lab.Outside, "[fd00::1]:7000", outside("2001:db8::3", "net1"), "pod", "2001:db8::3"},
		{lab.Outside, "[fd00:1::1]:7000", outside("2001:db8::3", "net1"), "pod", "2001:db8::3"},
	}
	ports := map[*netns.NS][]uint16{}
	for _, tt := range tests {
		for _, network := range []string{"tcp", "udp"} {
			to := netip.MustParseAddrPort(tt.to)
			reply, err := tt.from.Ask(t.Context(), network, to, tt.options)
			if err != nil {
				t.Errorf("%s %s from %s: %v", network, to, tt.from.Name(), err)
				continue
			}
			if reply.Server != tt.want || reply.Local != to || reply.Remote.Addr().String() != tt.sees {
				t.Errorf("%s %s from %s: got %+v, want %s to see %s", network, to, tt.from.Name(), reply, tt.want, tt.sees)
			}
			ports[tt.from] = append(ports[tt.from], reply.Remote.Port())
		}
	}
	if pod, outside := ports[lab.Pod], ports[lab.Outside]; slices.Max(pod) >= slices.Min(outside) {
		t.Errorf("the pod drew the ports %d, the outside %d: a proxy in the pod may draw its client's", pod, outside)
	}
}

// TestAddressesAreLocalAtOnce asks where new labs route packets for the pod's own addresses. The
// kernel is late with IPv6 in about every third lab, so fifty labs show a Connect that does not
// wait.
func TestAddressesAreLocalAtOnce(t *testing.T) {
	for range 50 {
		lab := newLab(t, "net1")
		for _, address := range []string{"10.0.0.1", "fd00::1", "10.1.0.1", "fd00:1::1"} {
			routes, err := lab.Pod.Netlink().RouteGet(net.ParseIP(address))
			if err != nil || len(routes) != 1 || routes[0].Type != unix.RTN_LOCAL {
				t.Fatalf("packets for the pod's own %s go by %v, %v", address, routes, err)
			}
		}
	}
}

// TestMarkedRoute checks that the mark selects the interface by which a packet arrives: otherwise
// TestLabReaches would pass with everything on eth0.
func TestMarkedRoute(t *testing.T) {
	lab := newLab(t, "net1")
	listen(t, lab.Pod, "tcp", "0.0.0.0:7000", netns.ListenOptions{Name: "pod"})
	run(t, lab.Pod, "iptables", "-A", "INPUT", "-i", "net1", "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset")
	to := netip.MustParseAddrPort("10.0.0.1:7000")
	o := netns.DialOptions{Source: netns.OutsideIPv4}
	if _, err := lab.Outside.Ask(t.Context(), "tcp", to, o); err != nil {
		t.Errorf("over eth0: %v", err)
	}
	o.Mark = lab.Mark("net1")
	if _, err := lab.Outside.Ask(t.Context(), "tcp", to, o); !netns.IsRefused(err) {
		t.Errorf("over net1: %v, want: connection refused", err)
	}
}

// TestOwner matches who dials, listens and accepts with the kernel's owner match.
func TestOwner(t *testing.T) {
	lab := newLab(t)
	for _, wildcard := range []string{"0.0.0.0:7000", "[::]:7000"} {
		listen(t, lab.Outside, "tcp", wildcard, netns.ListenOptions{Name: "outside", Transparent: true})
	}
	proxy := netns.Identity{UID: 1337, GID: 1338}
	for _, at := range []string{"0.0.0.0:8000", "[::]:8000"} {
		listen(t, lab.Pod, "tcp", at, netns.ListenOptions{Name: "root"})
		listen(t, lab.Pod, "udp", at, netns.ListenOptions{Name: "root"})
	}
	for _, at := range []string{"0.0.0.0:8001", "[::]:8001"} {
		listen(t, lab.Pod, "tcp", at, netns.ListenOptions{Name: "proxy", Identity: proxy})
		listen(t, lab.Pod, "udp", at, netns.ListenOptions{Name: "proxy", Identity: proxy})
	}
	for _, iptables := range []string{"iptables", "ip6tables"} {
		run(t, lab.Pod, iptables, "-A", "OUTPUT", "-m", "owner", "--uid-owner", "1337", "--gid-owner", "1338", "-j", "DROP")
	}
	short := 300 * time.Millisecond
	dial := func(uid, gid uint32) netns.DialOptions {
		return netns.DialOptions{Identity: netns.Identity{UID: uid, GID: gid}, Timeout: short}
	}
	outside := func(source netip.Addr) netns.DialOptions { return netns.DialOptions{Source: source, Timeout: short} }
	tests := []struct {
		from    *netns.NS
		network string
		to      string
		options netns.DialOptions
		dropped bool
	}{
		{lab.Pod, "tcp", "10.0.0.9:7000", dial(1337, 1338), true},
		{lab.Pod, "tcp", "[fd00::9]:7000", dial(1337, 1338), true},
		{lab.Pod, "tcp", "10.0.0.9:7000", dial(1337, 0), false},
		{lab.Pod, "tcp", "[fd00::9]:7000", dial(1000, 1338), false},
		{lab.Outside, "tcp", "10.0.0.1:8000", outside(netns.OutsideIPv4), false},
		{lab.Outside, "udp", "10.0.0.1:8000", outside(netns.OutsideIPv4), false},
		{lab.Outside, "tcp", "10.0.0.1:8001", outside(netns.OutsideIPv4), true},
		{lab.Outside, "tcp", "[fd00::1]:8001", outside(netns.OutsideIPv6), true},
		{lab.Outside, "udp", "10.0.0.1:8001", outside(netns.OutsideIPv4), true},
	}
	for _, tt := range tests {
		_, err := tt.from.Ask(t.Context(), tt.network, netip.MustParseAddrPort(tt.to), tt.options)
		if tt.dropped && !netns.IsTimeout(err) || !tt.dropped && err != nil {
			t.Errorf("%s %s as %+v: %v, want dropped: %v", tt.network, tt.to, tt.options.Identity, err, tt.dropped)
		}
	}
	if got := fmt.Sprint(unix.Getuid(), unix.Geteuid()); got != "0 0" {
		t.Errorf("after the test this process is %s, want 0 0", got)
	}
}

// TestOwnerOfAccepted adds the rules after the connection stands, so that they see only the
// accepted socket.
func TestOwnerOfAccepted(t *testing.T) {
	lab := newLab(t)
	listen(t, lab.Pod, "tcp", "0.0.0.0:8001", netns.ListenOptions{Name: "proxy", Identity: netns.Identity{UID: 1337}})
	run(t, lab.Pod, "iptables", "-A", "OUTPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-m", "owner", "--uid-owner", "1337",
		"-p", "tcp", "--tcp-flags", "PSH", "PSH", "-j", "DROP")
	_, err := lab.Outside.Ask(t.Context(), "tcp", netip.MustParseAddrPort("10.0.0.1:8001"),
		netns.DialOptions{Source: netns.OutsideIPv4, Timeout: 300 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "reading the server's reply") || !netns.IsTimeout(err) {
		t.Errorf("got %v, want a connection that stands, and a reply that is dropped", err)
	}
}

// TestRedirected checks that servers report where a client wanted to go.
func TestRedirected(t *testing.T) {
	lab := newLab(t)
	for _, at := range []string{"0.0.0.0:15001", "[::]:15001"} {
		listen(t, lab.Pod, "tcp", at, netns.ListenOptions{Name: "proxy"})
		listen(t, lab.Pod, "udp", at, netns.ListenOptions{Name: "proxy"})
	}
	for _, iptables := range []string{"iptables", "ip6tables"} {
		for _, protocol := range []string{"tcp", "udp"} {
			run(t, lab.Pod, iptables, "-t", "nat", "-A", "OUTPUT", "-p", protocol, "--dport", "80", "-j", "REDIRECT", "--to-ports", "15001")
		}
	}
	for _, to := range []string{"10.0.0.9:80", "[fd00::9]:80", "10.0.0.1:80", "[::1]:80"} {
		dst := netip.MustParseAddrPort(to)
		reply, err := lab.Pod.Ask(t.Context(), "tcp", dst, netns.DialOptions{})
		if err != nil || reply.Server != "proxy" || reply.Bound != 15001 || reply.Original != dst || reply.Local.Port() != 15001 {
			t.Errorf("tcp %s: got %+v, %v", to, reply, err)
		}
		reply, err = lab.Pod.Ask(t.Context(), "udp", dst, netns.DialOptions{})
		if err != nil || reply.Server != "proxy" || reply.Bound != 15001 {
			t.Errorf("udp %s: got %+v, %v", to, reply, err)
		}
	}
	for _, to := range []string{"10.0.0.9:81", "127.0.0.1:81"} {
		if _, err := lab.Pod.Ask(t.Context(), "tcp", netip.MustParseAddrPort(to), netns.DialOptions{}); !netns.IsRefused(err) {
			t.Errorf("tcp %s: %v, want: connection refused", to, err)
		}
	}
}

func run(t *testing.T, ns *netns.NS, name string, args ...string) {
	t.Helper()
	if out, err := ns.Command(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// verdict records what Require does with a test.
type verdict struct{ skipped, failed bool }

func (v *verdict) Helper()      {}
func (v *verdict) Fatal(...any) { v.failed = true }
func (v *verdict) Skip(...any)  { v.skipped = true }

func TestRequire(t *testing.T) {
	netns.Require(t)
	for _, test := range []struct {
		ci, command string
		want        verdict
	}{
		{"", "ls", verdict{}},
		{"", "no-such-command", verdict{skipped: true}},
		{"true", "ls", verdict{}},
		{"true", "no-such-command", verdict{failed: true}},
	} {
		t.Setenv("CI", test.ci)
		var got verdict
		if netns.Require(&got, "ls", test.command); got != test.want {
			t.Errorf("CI=%s, %s: %+v, want %+v", test.ci, test.command, got, test.want)
		}
	}
}
