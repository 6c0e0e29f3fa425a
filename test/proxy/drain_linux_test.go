package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// Ports of the app, and of a server outside.
const (
	webPort  = 8080
	echoPort = 8081
)

var (
	webIPv4   = netip.AddrPortFrom(netns.PodIPv4, webPort)
	webIPv6   = netip.AddrPortFrom(netns.PodIPv6, webPort)
	echoIPv4  = netip.AddrPortFrom(netns.PodIPv4, echoPort)
	echoIPv6  = netip.AddrPortFrom(netns.PodIPv6, echoPort)
	elsewhere = netip.AddrPortFrom(netns.OutsideIPv4, echoPort)
)

// drained is a pod with an app, its sidecar, and a program that drains it.
type drained struct {
	lab     *netns.Lab
	program string
	began   chan struct{} // a request for /wait has reached the app
	finish  chan struct{} // lets the app answer it
}

// TestDrain checks what shunt-init drain waits for, in an injected pod.
func TestDrain(t *testing.T) {
	t.Parallel()
	p := envoyPod(t, interception.ModeRedirect, lookForHTTP)
	d := &drained{lab: p.Lab, program: buildShuntInit(t), began: make(chan struct{}), finish: make(chan struct{})}
	d.serve(t)

	t.Run("nothing", func(t *testing.T) { d.start(t).endsIdle(t) })
	t.Run("idle HTTP/1.1", d.idleHTTP1)
	t.Run("idle HTTP/2", d.idleHTTP2)
	t.Run("the proxy's own listeners", func(t *testing.T) {
		d.dial(t, netip.AddrPortFrom(netns.PodIPv4, interception.HealthPort))
		d.dial(t, netip.AddrPortFrom(netns.PodIPv6, interception.MetricsPort))
		d.start(t).endsIdle(t)
	})
	for name, hold := range map[string]func(*testing.T) func(){
		"a request":       d.request,
		"half a response": d.halfResponse,
		"a websocket":     d.websocket,
		"a connection":    func(t *testing.T) func() { return d.connection(t, echoIPv4) },
		"one over IPv6":   func(t *testing.T) func() { return d.connection(t, echoIPv6) },
		"one to outside":  func(t *testing.T) func() { return d.connection(t, elsewhere) },
		"one that waits":  d.silent,
	} {
		t.Run(name+" is waited for", func(t *testing.T) {
			d.healthy(t)
			end := hold(t)
			draining := d.start(t)
			draining.goesOn(t)
			end()
			draining.endsIdle(t)
		})
	}
	t.Run("the time is over", func(t *testing.T) {
		defer d.request(t)()
		defer d.connection(t, echoIPv6)()
		d.start(t, "--duration=600ms").ends(t, 0, "time is up, 1 request and 1 connection left")
	})
	t.Run("a signal", func(t *testing.T) {
		defer d.connection(t, echoIPv4)()
		draining := d.start(t)
		draining.goesOn(t)
		if err := draining.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		draining.ends(t, 0, "ended by a signal")
	})
	t.Run("no admin interface", func(t *testing.T) {
		d.start(t, "--admin=127.0.0.1:1").ends(t, 4, "127.0.0.1:1")
		d.start(t, "--admin=127.0.0.1:15090").ends(t, 4, "POST /healthcheck/fail")
	})
}

// idleHTTP1 checks that a connection without a request is neither waited for nor cut off: its next
// response announces that it is the last. New connections are accepted.
func (d *drained) idleHTTP1(t *testing.T) {
	d.healthy(t)
	conn := d.dial(t, webIPv4)
	if got := ask(t, conn); got != (answered{http.StatusOK, false, ""}) {
		t.Errorf("before the drain: %+v", got)
	}
	d.start(t).endsIdle(t)
	if got := ask(t, conn); got != (answered{http.StatusOK, true, ""}) {
		t.Errorf("after it, on a connection from before: %+v", got)
	}
	if got := ask(t, d.dial(t, webIPv6)); got != (answered{http.StatusOK, true, ""}) {
		t.Errorf("after it, on a new connection: %+v", got)
	}
}

// idleHTTP2 checks the same with HTTP/2, where the connection is closed after a request.
func (d *drained) idleHTTP2(t *testing.T) {
	d.healthy(t)
	var connections atomic.Int32
	transport := &http.Transport{Protocols: &http.Protocols{}, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		connections.Add(1)
		return fromOutside(d.lab)(ctx, "tcp", webIPv4, netns.DialOptions{})
	}}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}
	ask := func() {
		if status, said := get(client, netns.PodIPv4, webPort, "/"); status != http.StatusOK {
			t.Fatalf("status %d: %s", status, said)
		}
	}
	ask()
	d.start(t).endsIdle(t)
	if ask(); connections.Load() != 1 {
		t.Errorf("%d connections for the first two requests, want 1", connections.Load())
	}
	within(t, "the client takes another connection", &output{}, func() bool { ask(); return connections.Load() > 1 })
}

// serve starts the app, and the server outside.
func (d *drained) serve(t *testing.T) {
	t.Helper()
	web := &http.Server{Handler: d, ReadHeaderTimeout: time.Minute, Protocols: &http.Protocols{}}
	web.Protocols.SetHTTP1(true)
	web.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(func() { _ = web.Close() })
	for _, wildcard := range netns.Wildcards {
		go func(l net.Listener) { _ = web.Serve(l) }(listen(t, d.lab.Pod, netip.AddrPortFrom(wildcard, webPort)))
		go echo(listen(t, d.lab.Pod, netip.AddrPortFrom(wildcard, echoPort)))
	}
	go echo(listen(t, d.lab.Outside, elsewhere))
}

func listen(t *testing.T, ns *netns.NS, at netip.AddrPort) net.Listener {
	t.Helper()
	listener, err := ns.ListenTCP(at, netns.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

// echo echoes on every connection.
func echo(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_, _ = io.Copy(conn, conn)
		}()
	}
}

// half is the half of a response that the app has for some requests.
const half = "half"

// ServeHTTP plays the app.
func (d *drained) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Header.Get("Upgrade") != "":
		conn, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(conn, buffered)
	case r.URL.Path == "/wait":
		d.began <- struct{}{}
		<-d.finish
	case r.URL.Path == "/half":
		fmt.Fprint(w, half)
		w.(http.Flusher).Flush()
		d.began <- struct{}{}
		<-d.finish
	}
}

// dial connects to the pod from outside, and to outside from the pod.
func (d *drained) dial(t *testing.T, to netip.AddrPort) net.Conn {
	t.Helper()
	dial := fromOutside(d.lab)
	if to == elsewhere {
		dial = d.lab.Pod.Dial
	}
	conn, err := dial(t.Context(), "tcp", to, netns.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// answered is what a client gets from the app.
type answered struct {
	status int
	last   bool // the connection is to be closed
	body   string
}

// ask sends a request over a connection that stays open.
func ask(t *testing.T, conn net.Conn, headers ...string) answered {
	t.Helper()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: app\r\n%s\r\n", strings.Join(headers, ""))
	return read(t, bufio.NewReader(conn))
}

func read(t *testing.T, r *bufio.Reader) answered {
	t.Helper()
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answered{response.StatusCode, response.Close, string(body)}
}

// exchange checks that a connection still works.
func exchange(t *testing.T, conn net.Conn) {
	t.Helper()
	const text = "EHLO\n"
	fmt.Fprint(conn, text)
	if got, err := bufio.NewReader(conn).ReadString('\n'); err != nil || got != text {
		t.Fatalf("echo %q, %v", got, err)
	}
}

// Each of the following starts something, and returns a function that ends it.

func (d *drained) request(t *testing.T) (end func()) {
	return d.unfinished(t, webIPv4, "/wait", "")
}

func (d *drained) halfResponse(t *testing.T) (end func()) {
	return d.unfinished(t, webIPv6, "/half", half)
}

func (d *drained) unfinished(t *testing.T, to netip.AddrPort, path, body string) (end func()) {
	conn := d.dial(t, to)
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: app\r\n\r\n", path)
	<-d.began
	return func() {
		d.finish <- struct{}{}
		if got := read(t, bufio.NewReader(conn)); got.status != http.StatusOK || got.body != body {
			t.Errorf("the request in flight: %+v", got)
		}
	}
}

func (d *drained) websocket(t *testing.T) (end func()) {
	conn := d.dial(t, webIPv4)
	if got := ask(t, conn, "Connection: Upgrade\r\n", "Upgrade: websocket\r\n"); got.status != http.StatusSwitchingProtocols {
		t.Fatalf("%+v", got)
	}
	return func() {
		exchange(t, conn)
		_ = conn.Close()
	}
}

func (d *drained) connection(t *testing.T, to netip.AddrPort) (end func()) {
	conn := d.dial(t, to)
	exchange(t, conn)
	return func() {
		exchange(t, conn)
		_ = conn.Close()
	}
}

// silent opens a connection and sends nothing.
func (d *drained) silent(t *testing.T) (end func()) {
	conn := d.dial(t, echoIPv4)
	within(t, "the proxy has taken the connection", &output{}, func() bool {
		_, stats := get(client(d.lab.Pod.Dial), adminAddress.Addr(), adminAddress.Port(), "/stats?filter=15006.downstream.*cx_active")
		return strings.Contains(stats, ": 1\n")
	})
	return func() { _ = conn.Close() }
}

// healthy undoes a drain.
func (d *drained) healthy(t *testing.T) {
	t.Helper()
	response, err := client(d.lab.Pod.Dial).Post("http://"+adminAddress.String()+"/healthcheck/ok", "", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
}

// draining is a run of shunt-init drain.
type draining struct {
	cmd    *netns.Cmd
	output *output
	end    chan error
}

// start runs the program as the sidecar's user, without any capability.
func (d *drained) start(t *testing.T, args ...string) *draining {
	t.Helper()
	file, err := os.Open(d.program)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	run := &draining{output: &output{}, end: make(chan error, 1)}
	run.cmd = d.lab.Pod.Command(t.Context(), "setpriv", append([]string{
		fmt.Sprintf("--reuid=%d", interception.DefaultProxyUID), fmt.Sprintf("--regid=%d", interception.DefaultProxyGID),
		"--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--pdeathsig=KILL", "/proc/self/fd/3", "drain",
	}, args...)...)
	run.cmd.ExtraFiles = []*os.File{file}
	run.cmd.Stdout, run.cmd.Stderr = run.output, run.output
	if err := run.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { run.end <- run.cmd.Wait() }()
	return run
}

// goesOn checks that the drain has not ended after more than enough looks.
func (r *draining) goesOn(t *testing.T) {
	t.Helper()
	select {
	case err := <-r.end:
		t.Fatalf("the drain ended (%v) while something was under way: %s", err, r.output)
	case <-time.After(time.Second):
	}
}

func (r *draining) endsIdle(t *testing.T) {
	t.Helper()
	r.ends(t, 0, "no requests or connections left")
}

func (r *draining) ends(t *testing.T, code int, wanted string) {
	t.Helper()
	select {
	case err := <-r.end:
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if got := r.cmd.ProcessState.ExitCode(); got != code || !strings.Contains(r.output.String(), wanted) {
			t.Errorf("exit code %d, want %d, and to hear %q: %s", got, code, wanted, r.output)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("the drain goes on: %s", r.output)
	}
}
