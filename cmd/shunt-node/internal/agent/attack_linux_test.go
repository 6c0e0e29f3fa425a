package agent

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/google/nftables"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/test/netns"
)

// TestBeginAnswersInTime checks that no pod makes the runtime drop the agent, however long its rules
// take: here a process holds the namespace's lock.
func TestBeginAnswersInTime(t *testing.T) {
	netns.Require(t)
	a := newAgent(t, true)
	p, ns := newPod(t, interception.SystemRedirect)
	letGo := holdLock(t, ns)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := a.begin(ctx, p); err != nil {
		t.Error(err)
	}
	letGo()
	awaitIdle(t, a)
	if got := receiptIn(t, p); got.State != kernel.ReceiptDone {
		t.Errorf("the set-up did not go on: %+v", got)
	}
}

// TestHeldLock checks that a pod that holds the lock of its namespace keeps nobody from looking at its
// rules, and no other pod from being set up.
func TestHeldLock(t *testing.T) {
	netns.Require(t)
	a := newAgent(t, true)
	watched, ns := newPod(t, interception.SystemRedirect)
	a.takeOver(watched)
	awaitIdle(t, a)
	letGo := holdLock(t, ns)
	deleteTable(t, ns)
	a.compare(watched)
	if got := testutil.ToFloat64(a.Metrics.comparisons.WithLabelValues(comparedChanged)); got != 1 {
		t.Errorf("%v comparisons say that the rules were changed", got)
	}
	var holding []func()
	var pods []pod
	for range 20 {
		p, ns := newPod(t, interception.SystemRedirect)
		pods, holding = append(pods, p), append(holding, holdLock(t, ns))
	}
	honest, _ := newPod(t, interception.SystemRedirect)
	a.synchronize(append(pods, honest))
	for receiptIn(t, honest).State != kernel.ReceiptDone {
		time.Sleep(10 * time.Millisecond)
	}
	letGo()
	for _, letGo := range holding {
		letGo()
	}
	awaitIdle(t, a)
}

// holdLock takes the lock of a namespace, as any process there can.
func holdLock(t *testing.T, ns *netns.NS) (letGo func()) {
	t.Helper()
	var fd int
	err := ns.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err == nil {
			err = unix.Bind(fd, &unix.SockaddrUnix{Name: "@shunt-init"})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return func() { _ = unix.Close(fd) }
}

func deleteTable(t *testing.T, ns *netns.NS) {
	t.Helper()
	err := ns.Do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		conn.DelTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "shunt"})
		return conn.Flush()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestOnceAtATime checks that a pod that is being set up is not set up beside it: the two would leave
// receipts in any order.
func TestOnceAtATime(t *testing.T) {
	netns.Require(t)
	a := newAgent(t, true)
	p, ns := newPod(t, interception.SystemRedirect)
	letGo := holdLock(t, ns)
	a.takeOver(p)
	a.takeOver(p)
	if err := a.begin(t.Context(), p); err != nil {
		t.Error(err)
	}
	a.compare(p)
	letGo()
	awaitIdle(t, a)
	for when, want := range map[string]float64{atStart: 0, late: 1, repair: 0} {
		if got := testutil.ToFloat64(a.Metrics.setUps.WithLabelValues(when, resultDone)); got != want {
			t.Errorf("%v set-ups at %s, want %v", got, when, want)
		}
	}
}

// TestOddPaths checks that a path that is no network namespace is told of, and holds nobody.
func TestOddPaths(t *testing.T) {
	netns.Require(t)
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		filepath.Join(dir, "fifo"), filepath.Join(dir, "file"), filepath.Join(dir, "missing"), dir, "/proc/self/ns/ipc",
	} {
		a := newAgent(t, true)
		p, _ := newPod(t, interception.SystemRedirect)
		p.netns = path
		if err := a.begin(t.Context(), p); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
		awaitIdle(t, a)
		a.remember(p)
		a.compare(p)
		awaitIdle(t, a)
	}
}

// TestStopped checks that a sandbox that ends is forgotten, without any comparison.
func TestStopped(t *testing.T) {
	netns.Require(t)
	a := newAgent(t, true)
	p, _ := newPod(t, interception.SystemRedirect)
	sandbox, runtime := sandboxOf(p), &plugin{agent: a}
	if err := runtime.RunPodSandbox(t.Context(), sandbox); err != nil || a.count() != 1 {
		t.Fatalf("%v, %d pods", err, a.count())
	}
	awaitIdle(t, a)
	if err := runtime.StopPodSandbox(t.Context(), sandbox); err != nil || a.count() != 0 {
		t.Errorf("%v, %d pods", err, a.count())
	}
}

// TestStartContainer checks that a pod of which the runtime has not told is set up when its gate starts, and
// that one whose set-up has failed is set up again.
func TestStartContainer(t *testing.T) {
	netns.Require(t)
	a := newAgent(t, true)
	p, _ := newPod(t, interception.SystemRedirect)
	runtime := &plugin{agent: a}
	for _, when := range []string{late, repair} {
		if err := runtime.StartContainer(t.Context(), sandboxOf(p), nil); err != nil {
			t.Fatal(err)
		}
		for testutil.ToFloat64(a.Metrics.setUps.WithLabelValues(when, resultDone)) != 1 {
			time.Sleep(10 * time.Millisecond)
		}
		awaitIdle(t, a)
		a.takeOver(p) // changes nothing
		err := inNamespace(p.netns, func() error {
			return kernel.LeaveReceipt(kernel.Receipt{State: kernel.ReceiptFailed, Digest: receiptIn(t, p).Digest})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func sandboxOf(p pod) *api.PodSandbox {
	return &api.PodSandbox{
		Id: p.sandbox, Annotations: map[string]string{podplan.RulesKey: p.text},
		Linux: &api.LinuxPodSandbox{Namespaces: []*api.LinuxNamespace{{Type: "network", Path: p.netns}}},
	}
}

// TestNothingIsLeft checks that set-ups and comparisons leave no thread and no open file behind.
func TestNothingIsLeft(t *testing.T) {
	netns.Require(t)
	a := newAgent(t, true)
	p, ns := newPod(t, interception.SystemRedirect)
	threads, files := 0, 0
	for i := range 60 {
		deleteProof(t, ns)
		a.compare(p)
		if err := a.begin(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		awaitIdle(t, a)
		if i == 9 { // the first start what stays
			threads, files = count(t, "/proc/self/task"), count(t, "/proc/self/fd")
		}
	}
	// A thread that has ended may be seen for a moment.
	if got := count(t, "/proc/self/task"); got > threads+10 {
		t.Errorf("%d threads, %d before", got, threads)
	}
	if got := count(t, "/proc/self/fd"); got > files+2 {
		t.Errorf("%d files are open, %d before", got, files)
	}
}

// deleteProof makes the next set-up send its probes again.
func deleteProof(t *testing.T, ns *netns.NS) {
	t.Helper()
	err := ns.Do(func() error {
		host, err := kernel.Open(t.Context(), interception.Options{Backend: interception.BackendNFTables})
		if err != nil {
			return err
		}
		defer host.Close()
		for _, family := range host.Families() {
			if _, err := host.ForgetProof(family); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
