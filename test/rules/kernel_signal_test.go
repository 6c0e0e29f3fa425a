//go:build linux

package rules

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/test/netns"
)

// TestSignalEndsWaiting signals runs that wait for the lock. shunt-init catches signals from when it
// waits; one that comes before ends the process, so the first runs may end in that way.
func TestSignalEndsWaiting(t *testing.T) {
	netns.Require(t)
	t.Parallel()
	bin, pod := buildShuntInit(t), quietLab(t).Pod
	var lock int
	err := pod.Do(func() (err error) {
		if lock, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(lock, &unix.SockaddrUnix{Name: "@shunt-init"})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(lock)
	const runs = 50
	for i := range runs {
		cmd := pod.Command(t.Context(), bin, "--backend=nftables")
		var said bytes.Buffer
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); unixSockets(t, pod) < 2 && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Duration(i) * 5 * time.Millisecond) // on a busy machine it has a socket long before it waits
		if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		var failed *exec.ExitError
		switch err := cmd.Wait(); {
		case !errors.As(err, &failed):
			t.Fatalf("it ended with %v: %s", err, &said)
		case failed.ExitCode() == exitPreflight && strings.Contains(said.String(), "waiting for another shunt-init"):
			return
		case failed.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM:
			t.Fatalf("it ended with %v: %s", err, &said)
		}
	}
	t.Errorf("a signal ended %d runs before they could say why", runs)
}

// unixSockets returns how many unix sockets a namespace has: one holds the lock, others wait for it.
func unixSockets(t *testing.T, ns *netns.NS) int {
	t.Helper()
	out, err := ns.Command(t.Context(), "cat", "/proc/net/unix").Output()
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(out, []byte("\n")) - 1
}
