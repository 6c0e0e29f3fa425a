package load_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/cert"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/webhook"
)

// certificates is an environment variable of a copy of this program: the folder with the
// certificate that the copy serves the webhook with.
const certificates = "SHUNT_LOAD_CERTIFICATES"

// open is an environment variable with which the copy's lookups of namespaces wait for nobody.
var open = corev1.EnvVar{Name: "SHUNT_LOAD_OPEN", Value: "true"}

// TestMain runs the tests, or the webhook's server in a process of its own, so that its memory is
// not that of the clients.
func TestMain(m *testing.M) {
	dir := os.Getenv(certificates)
	if dir == "" {
		os.Exit(m.Run())
	}
	if err := serve(dir); err != nil {
		fmt.Fprintln(os.Stderr, "load: the server ended:", err)
		os.Exit(1)
	}
}

// gate is a lookup of namespaces that lets nobody through until so many wait, and from then on
// everybody. So all of the first were in flight together.
type gate struct {
	webhook.StaticNamespaces
	wanted int64
	there  atomic.Int64
	open   chan struct{}
}

func (g *gate) Namespace(ctx context.Context, name string) (annotation.Namespace, error) {
	if g.there.Add(1) == g.wanted {
		close(g.open)
	}
	select {
	case <-g.open: // first: a select takes either of two that are ready
		return g.StaticNamespaces.Namespace(ctx, name)
	default:
	}
	select {
	case <-g.open:
		return g.StaticNamespaces.Namespace(ctx, name)
	case <-ctx.Done():
		return annotation.Namespace{}, fmt.Errorf("%d of %d reviews were in flight at once: %w", g.there.Load(), g.wanted, ctx.Err())
	}
}

// serve runs the real server until standard input ends, as it does when the test process ends,
// however it ends. It prints its address.
func serve(dir string) error {
	enabled := map[string]string{annotation.NamespaceInjectionKey: annotation.NamespaceEnabled}
	namespaces := &gate{
		StaticNamespaces: webhook.StaticNamespaces{namespace: {Name: namespace, Labels: enabled}},
		wanted:           atOnce, open: make(chan struct{}),
	}
	if os.Getenv(open.Name) != "" {
		namespaces.wanted = 1
	}
	metrics := webhook.NewMetrics()
	log := logr.FromSlogHandler(slog.NewJSONHandler(io.Discard, nil)) // formatted as in a cluster, and discarded
	ctrl.SetLogger(log)
	answers := webhook.NewHandler(config.Default(), namespaces, metrics)
	answers.SetAnswerTimeout(time.Minute) // however busy the machine is
	handler := answers.HTTP(log)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	for {
		address, err := freeAddress()
		if err != nil {
			return err
		}
		server := webhook.NewServer(webhook.Options{Host: address.IP.String(), Port: address.Port, CertDir: dir}, metrics)
		server.Register(webhook.Path, handler)
		attempt, over := context.WithCancel(ctx)
		go func() {
			for attempt.Err() == nil && server.StartedChecker()(nil) != nil {
				time.Sleep(5 * time.Millisecond)
			}
			fmt.Println(address)
		}()
		err = server.Start(ctx)
		over()
		if !errors.Is(err, syscall.EADDRINUSE) { // somebody else was faster
			return err
		}
	}
}

func freeAddress() (*net.TCPAddr, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return listener.Addr().(*net.TCPAddr), listener.Close()
}

// server is the server's process.
type server struct {
	address string
	roots   []byte // PEM
	command *exec.Cmd
}

// startServer makes a certificate and runs a copy of this program that serves with it until the
// test ends, with the variables of the webhook's container.
func startServer(t *testing.T, variables []corev1.EnvVar) server {
	t.Helper()
	certificate, key, err := cert.GenerateSelfSignedCertKey("shunt-webhook.shunt-system.svc", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string][]byte{"tls.crt": certificate, "tls.key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	result := server{roots: certificate, command: exec.Command(os.Args[0])}
	result.command.Env = append(os.Environ(), certificates+"="+dir)
	for _, variable := range variables {
		if variable.ValueFrom == nil {
			result.command.Env = append(result.command.Env, variable.Name+"="+variable.Value)
		}
	}
	result.command.Stderr = os.Stderr
	input, err := result.command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := result.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := result.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = input.Close()
		if err := result.command.Wait(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		t.Fatalf("the server said no address: %v", err)
	}
	result.address = strings.TrimSpace(line)
	return result
}

// peakMemory returns the most memory that the server's process has used, in bytes.
func (s server) peakMemory(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.command.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	kilobytes, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, err := strconv.ParseInt(kilobytes, 10, 64)
	if err != nil {
		t.Fatalf("VmHWM is %q: %v", kilobytes, err)
	}
	return n << 10
}
