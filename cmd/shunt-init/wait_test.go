//go:build linux

package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// waitFor runs the command for a server at an address.
func waitFor(t *testing.T, address string, args ...string) (string, error) {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	var stdout strings.Builder
	err = run(t.Context(), append([]string{"wait", "--port", port}, args...), &stdout)
	return stdout.String(), err
}

// TestWaitUntilHealthy waits for a proxy that listens and is not healthy yet.
func TestWaitUntilHealthy(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) < 3 || r.URL.Path != "/healthz/ready" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	said, err := waitFor(t, server.Listener.Addr().String(), "--path=/healthz/ready")
	if err != nil || !strings.Contains(said, "answers") || asked.Load() != 3 {
		t.Errorf("asked %d times, said %q, error %v", asked.Load(), said, err)
	}
	if _, err := waitFor(t, server.Listener.Addr().String(), "--path=/other", "--duration=1s"); exitCode(err) != exitUnreachable ||
		!strings.Contains(err.Error(), "503") {
		t.Errorf("a path that is never well: %v, exit code %d", err, exitCode(err))
	}
}

// TestWaitUntilItListens waits for a proxy that does not listen yet, on either loopback address.
func TestWaitUntilItListens(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		var config net.ListenConfig
		listener, err := config.Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Logf("%s: %v", host, err)
			continue
		}
		address := listener.Addr().String()
		_ = listener.Close()
		// kubelet shows the message as it is.
		if _, err := waitFor(t, address, "--duration=300ms"); exitCode(err) != exitUnreachable || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s, where nobody listens: %v, exit code %d", address, err, exitCode(err))
		}
		done := make(chan error, 1)
		go func() {
			_, err := waitFor(t, address, "--duration=20s")
			done <- err
		}()
		if listener, err = config.Listen(t.Context(), "tcp", address); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = listener.Close()
	}
}

// TestWaitEndsWithItsContext ends the wait as kubelet does when it stops the container while it
// starts.
func TestWaitEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := run(ctx, []string{"wait", "--port=1"}, &strings.Builder{}); exitCode(err) != exitUnreachable {
		t.Errorf("%v, exit code %d", err, exitCode(err))
	}
}

// TestWaitLeavesItsMessage checks what kubelet shows of a proxy that did not answer.
func TestWaitLeavesItsMessage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "termination-log")
	if err := leaveMessage(path, errWait); err != nil {
		t.Errorf("without such a file: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := leaveMessage(path, errWait); err != nil {
		t.Error(err)
	}
	if said, err := os.ReadFile(path); err != nil || string(said) != "shunt-init: wait: no answer\n" {
		t.Errorf("%q, error %v", said, err)
	}
	if err := leaveMessage(filepath.Dir(path), errWait); err == nil {
		t.Error("a folder was written to")
	}
}

func TestWaitRefusesWrongArguments(t *testing.T) {
	for args, want := range map[string]string{
		"": `--port: invalid value ""`, "--port=0": `"0"`, "--port=80 --path=ready": `--path: invalid value "ready"`,
		"--port=80 --duration=0s": `--duration: invalid value "0s"`, "--port=80 --duration=1": `"1"`, "--port=80 now": `"now"`,
		"--host=a": "--host",
	} {
		err := run(t.Context(), append([]string{"wait"}, strings.Fields(args)...), &strings.Builder{})
		if exitCode(err) != exitArguments || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "accepted: ") {
			t.Errorf("%q: %v, want it to say %s and what is accepted", args, err, want)
		}
	}
	if err := run(t.Context(), []string{"wait", "--port=80", "--path=/a\r\nb"}, &strings.Builder{}); exitCode(err) != exitArguments {
		t.Errorf("a path of two lines: %v", err)
	}
}
