//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shunt-dev/shunt/cmd/shunt-init/internal/drain"
	"github.com/shunt-dev/shunt/initimage/kernel"
)

// TestMain makes the test binary act as shunt-init, so that exit codes are those of a process.
func TestMain(m *testing.M) {
	switch os.Getenv("SHUNT_INIT_TEST") {
	case "1":
		main()
	case "wait": // runs until its standard input ends
		_, err := io.Copy(io.Discard, os.Stdin)
		os.Exit(exitCode(err))
	case "gate":
		os.Exit(impatientGate())
	case "forge": // what only the node's agent may write
		os.Exit(forge())
	}
	os.Exit(m.Run())
}

// initCommand returns a command that runs shunt-init as a process of its own.
func initCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), "SHUNT_INIT_TEST=1")
	return cmd
}

func TestBadArgumentsExitWith2(t *testing.T) {
	cmd := initCommand(t, "-p", "99999", "-m", "tproxy", "-d", "80,http")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitArguments {
		t.Errorf("exit: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	if len(lines) != 3 {
		t.Errorf("a line for each of 3 wrong flags is expected:\n%s", stderr.String())
	}
	for _, want := range []string{`"99999"`, `"tproxy"`, `"http"`, "shunt-init: --envoy-port: "} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("%s is not in\n%s", want, stderr.String())
		}
	}
}

// TestCrashIsNoBadArgument makes Go's runtime end the program, as it does if no thread can be made.
// Go's own exit code for that is 2.
func TestCrashIsNoBadArgument(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed below
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	cmd := initCommand(t, waitCommand, "--port", port, "--path", "/", "--duration", "1m")
	cmd.Dir = t.TempDir() // for the core file, if there is one
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := listener.Accept(); err != nil { // now it waits for an answer
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if status, is := cmd.ProcessState.Sys().(syscall.WaitStatus); !is || status.Signal() != syscall.SIGABRT {
		t.Errorf("it ended with %v, want SIGABRT:\n%s", cmd.ProcessState, stderr.String())
	}
}

// TestWithoutCapabilityExitsWith3 runs as a user without capabilities.
func TestWithoutCapabilityExitsWith3(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to become another user")
	}
	cmd := initCommand(t)
	cmd.Path = publicCopy(t, os.Args[0])
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitPreflight {
		t.Fatalf("exit: %v: %s", err, out)
	}
	if !strings.Contains(string(out), "NET_ADMIN") {
		t.Errorf("the missing capability is not named: %s", out)
	}
}

// publicCopy copies a program to where every user can run it: go test builds in a folder that
// others may not enter.
func publicCopy(t *testing.T, path string) string {
	t.Helper()
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "shunt-init-test-") //nolint:usetesting // t.TempDir is below a folder that others may not enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // for the other user
		t.Fatal(err)
	}
	public := filepath.Join(dir, "shunt-init")
	if err := os.WriteFile(public, program, 0o755); err != nil { //nolint:gosec // for the other user
		t.Fatal(err)
	}
	return public
}

func TestDryRunPrintsBothFamilies(t *testing.T) {
	var out strings.Builder
	if err := run(context.Background(), []string{"-n", "-m", "TPROXY"}, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# IPv4\n*mangle", "# IPv6\n*mangle", "--on-ip ::", "# ip -6 rule add fwmark"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	out.Reset()
	if err := run(context.Background(), []string{"-n", "--ipv6=off"}, &out); err != nil || strings.Contains(out.String(), "IPv6") {
		t.Errorf("error %v, printed\n%s", err, out.String())
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"--version"}, {"drain", "--help"}, {"drain", "-h"}} {
		var out strings.Builder
		if err := run(context.Background(), args, &out); err != nil || !strings.Contains(out.String(), "shunt-init") {
			t.Errorf("%q: error %v, printed %q", args, err, out.String())
		}
	}
}

func TestExitCodes(t *testing.T) {
	for _, test := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("bad"), 2},
		{fmt.Errorf("x: %w", kernel.ErrPreflight), 3},
		{fmt.Errorf("x: %w", kernel.ErrApply), 4},
		{fmt.Errorf("x: %w", drain.ErrAdmin), 4},
	} {
		if got := exitCode(test.err); got != test.want {
			t.Errorf("%v: exit code %d, not %d", test.err, got, test.want)
		}
	}
}
