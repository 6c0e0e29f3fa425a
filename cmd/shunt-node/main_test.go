//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/cmd/internal/daemon"
)

func TestWrongArguments(t *testing.T) {
	for args, want := range map[string]string{
		"--nri-socket=":                     `--nri-socket: invalid value ""`,
		"--resync=1ms":                      "--resync: invalid value 1ms",
		"--resync=-1s":                      "--resync: invalid value -1s",
		"--on-change=ignore":                `--on-change: invalid value "ignore"`,
		"--metrics-bind-address=8080":       `--metrics-bind-address: invalid value "8080"`,
		"--health-probe-bind-address=:8080": "--health-probe-bind-address",
		"--log-level=loud":                  `--log-level: invalid value "loud"`,
		"--log-format=xml":                  `--log-format: invalid value "xml"`,
		"--node=a":                          "--node",
		"now":                               `"now"`,
		"--log-level=loud --log-format=xml --resync=-1s": "--resync",
	} {
		err := run(t.Context(), strings.Fields(args), io.Discard, io.Discard)
		if daemon.ExitCode(err) != daemon.ExitArguments || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "accepted: ") {
			t.Errorf("%s: %v, want it to say %s and what is accepted", args, err, want)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	for arg, want := range map[string]string{"--help": "--nri-socket", "--version": "shunt-node dev"} {
		var out bytes.Buffer
		if err := run(t.Context(), []string{arg}, &out, io.Discard); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %v\n%s", arg, err, out.String())
		}
	}
}

// TestWithoutRuntime checks that the agent serves without a container runtime, is alive but not ready,
// and ends when it is told to.
func TestWithoutRuntime(t *testing.T) {
	metrics, health := freeAddress(t), freeAddress(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{
			"--nri-socket=" + filepath.Join(t.TempDir(), "nri.sock"),
			"--metrics-bind-address=" + metrics, "--health-probe-bind-address=" + health,
		}, io.Discard, io.Discard)
	}()
	for url, want := range map[string]string{
		"http://" + health + "/healthz":  "200 ",
		"http://" + health + "/readyz":   "503 not connected to the container runtime",
		"http://" + metrics + "/metrics": "shunt_node_connected 0",
	} {
		if got := get(t, url); !strings.Contains(got, want) {
			t.Errorf("%s: %s", url, got)
		}
	}
	stop()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// get tries until there is an answer, and returns its code and body.
func get(t *testing.T, url string) string {
	t.Helper()
	for {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			if t.Context().Err() != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
			continue
		}
		body, err := io.ReadAll(answer.Body)
		if err = errors.Join(err, answer.Body.Close()); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(answer.StatusCode, " ", string(body))
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
