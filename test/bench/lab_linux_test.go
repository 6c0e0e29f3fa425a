package bench_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/test/netns"
)

// CPUs of a comparison: one is the proxy's alone, so that its rate is that of
// a proxy at work without a pause.
const (
	proxyCPU = "1"
	otherCPU = "0" // of client and app
)

// network is a pod and one client.
type network struct {
	pod, client *netns.NS
}

func newNetwork(b *testing.B) network {
	b.Helper()
	var n network
	for name, ns := range map[string]**netns.NS{"pod": &n.pod, "client": &n.client} {
		made, err := netns.New(name)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = made.Close() })
		*ns = made
	}
	err := errors.Join(
		netns.Connect(
			netns.End{NS: n.pod, Name: "eth0", Addrs: []netip.Addr{netns.PodIPv4}},
			netns.End{NS: n.client, Name: "eth0", Addrs: []netip.Addr{netns.OutsideIPv4}}),
		n.pod.Route(netip.MustParsePrefix("0.0.0.0/0"), "eth0"),
		n.client.Route(netip.PrefixFrom(netns.PodIPv4, 32), "eth0"),
	)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// process says how a program runs: on which CPU, and as whom.
type process struct {
	cpu      string
	uid, gid uint32
	env      []string
	files    []*os.File // from descriptor 3 on
}

// command is a program that runs ahead of what else the machine does (chrt):
// a busy machine then costs the others time, and the figures little.
func (p process) command(ctx context.Context, ns *netns.NS, args ...string) *netns.Cmd {
	cmd := ns.Command(ctx, "chrt", append([]string{
		"--rr", "1", "taskset", "--cpu-list", p.cpu,
		"setpriv", fmt.Sprintf("--reuid=%d", p.uid), fmt.Sprintf("--regid=%d", p.gid), "--clear-groups", "--pdeathsig=KILL",
	}, args...)...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.ExtraFiles = p.files
	return cmd
}

// start runs a program until the benchmark ends, and returns its process id.
func (p process) start(b *testing.B, ns *netns.NS, args ...string) int {
	b.Helper()
	log, err := os.Create(filepath.Join(b.TempDir(), "stderr"))
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	ctx, cancel := context.WithCancel(b.Context())
	cmd := p.command(ctx, ns, args...)
	cmd.Stderr = log // standard output, the access log, goes nowhere
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if text, err := os.ReadFile(log.Name()); b.Failed() && err == nil {
			b.Logf("%s said: %.2000s", args[0], text)
		}
	})
	return cmd.Process.Pid
}

// intercept puts the rules of a route into the pod.
func (n network) intercept(b *testing.B, shuntInit string, r route) {
	b.Helper()
	args := []string{"-m", string(r.mode)}
	if r.noConntrack {
		args = append(args, "--no-conntrack", "--backend=nftables")
	}
	if out, err := n.pod.Command(b.Context(), shuntInit, args...).CombinedOutput(); err != nil {
		b.Fatalf("shunt-init %q: %v\n%s", args, err, out)
	}
}

// appPort is the app's.
const appPort = 8080

// largeBody is how many bytes a large answer has.
const largeBody = 1_000_000

// app is an app that gives answers of one size, and the source address of the
// connection at /source. It is HAProxy as a server: large answers take large
// buffers, which would make small ones slow.
type app struct {
	buffer int
	answer string
}

var (
	smallApp = app{buffer: 16384, answer: "string ok"}
	largeApp = app{buffer: 1 << 20, answer: "file /proc/self/fd/4"}
)

func (a app) config() string {
	return fmt.Sprintf(`global
	nbthread 1
	fd-hard-limit 50000
	tune.bufsize %d
defaults
	mode http
	timeout client 1m
	timeout connect 5s
	timeout server 1m
frontend app
	bind 0.0.0.0:%d
	http-request return status 200 content-type text/plain lf-string %%[src] if { path /source }
	http-request return status 200 content-type text/plain %s
`, a.buffer, appPort, a.answer)
}

// serve starts an app.
func (n network) serve(b *testing.B, a app) {
	b.Helper()
	files := []*os.File{openFile(b, "app.cfg", a.config()), openFile(b, "body", string(make([]byte, largeBody)))}
	p := process{cpu: otherCPU, uid: 1000, gid: 1000, files: files}
	p.start(b, n.pod, "haproxy", "-db", "-f", "/proc/self/fd/3")
}

// openFile makes a file and opens it: who is handed it need not be allowed to
// walk to it.
func openFile(b *testing.B, name, text string) *os.File {
	b.Helper()
	path := filepath.Join(b.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
	return openPath(b, path)
}

func openPath(b *testing.B, path string) *os.File {
	b.Helper()
	file, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = file.Close() })
	return file
}

// source asks the app for the address that it sees the client at, until it
// answers.
func (n network) source(b *testing.B, port int) string {
	b.Helper()
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
			at, err := netip.ParseAddrPort(to)
			if err != nil {
				return nil, err
			}
			return n.client.Dial(ctx, network, at, netns.DialOptions{Timeout: 2 * time.Second})
		},
	}}
	var last error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		response, err := c.Get(fmt.Sprintf("http://%s:%d/source", netns.PodIPv4, port))
		if err != nil {
			last = err
			continue
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err == nil && response.StatusCode == http.StatusOK {
			return string(body)
		}
		last = fmt.Errorf("status %s: %w", response.Status, err)
	}
	b.Fatalf("the app does not answer after 20 s: %v", last)
	return ""
}

// requireCommands skips a benchmark whose programs are missing, or that has
// not two CPUs; in CI it fails it.
func requireCommands(b *testing.B, commands ...string) {
	b.Helper()
	netns.Require(b, commands...)
	if err := exec.Command("taskset", "--cpu-list", "0,1", "true").Run(); err != nil {
		b.Skipf("this benchmark pins programs to the CPUs 0 and 1: %v", err)
	}
}
