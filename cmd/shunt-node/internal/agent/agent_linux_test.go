package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/test/netns"
)

func newAgent(t testing.TB, repairs bool) *Agent {
	t.Helper()
	return New(Options{
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Metrics: NewMetrics(prometheus.NewRegistry()), Repair: repairs,
	})
}

// newPod returns a pod with a network namespace of its own.
func newPod(t testing.TB, system interception.System) (pod, *netns.NS) {
	t.Helper()
	lab, err := netns.NewLab()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lab.Close() })
	rules := interception.NodeRules{Spec: interception.DefaultFor(system), IPv6: interception.IPv6Auto}
	return pod{namespace: "shop", name: "cart", uid: "1", sandbox: lab.Pod.Path(), netns: lab.Pod.Path(), text: rules.String()}, lab.Pod
}

func receiptIn(t testing.TB, p pod) kernel.Receipt {
	t.Helper()
	receipt, _, err := receiptOf(p)
	if err != nil {
		t.Fatal(err)
	}
	return receipt
}

// awaitReceipt waits for the end of a set-up, which begin does not wait for.
func awaitReceipt(t testing.TB, p pod) kernel.Receipt {
	t.Helper()
	for range 3000 {
		if receipt := receiptIn(t, p); receipt.State != kernel.ReceiptBegun {
			return receipt
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("no end of the set-up")
	return kernel.Receipt{}
}

// awaitIdle waits until nothing is being set up.
func awaitIdle(t testing.TB, a *Agent) {
	t.Helper()
	for range 6000 {
		a.mu.Lock()
		busy := len(a.busy)
		a.mu.Unlock()
		if busy == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("no end of the set-ups")
}

// TestBegin checks that the rules of a new sandbox are there when begin returns, and the receipt when
// they are proved.
func TestBegin(t *testing.T) {
	netns.Require(t)
	for _, system := range []interception.System{interception.SystemRedirect, interception.SystemTProxy} {
		a := newAgent(t, true)
		p, _ := newPod(t, system)
		if err := a.begin(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		rules, err := p.rules()
		if err != nil {
			t.Fatal(err)
		}
		found, err := drift(t.Context(), p, rules)
		// The probes, which go on, have routes of their own.
		lost := []kernel.Cause{kernel.CauseGone, kernel.CauseMissing, kernel.CauseChanged, kernel.CauseSettings}
		if err != nil || slices.ContainsFunc(found.Causes, func(cause kernel.Cause) bool { return slices.Contains(lost, cause) }) {
			t.Errorf("%s: %q, %v", system, found.Findings, err)
		}
		if got := awaitReceipt(t, p); got != (kernel.Receipt{State: kernel.ReceiptDone, Digest: rules.Digest()}) {
			t.Errorf("%s: receipt %+v", system, got)
		}
		if a.count() != 1 {
			t.Errorf("%d pods are watched", a.count())
		}
	}
}

// TestSlowStartCounts checks that a sandbox that goes on before it has its rules counts in the metric of
// how long sandboxes wait, which is about those.
func TestSlowStartCounts(t *testing.T) {
	netns.Require(t)
	registry := prometheus.NewPedanticRegistry()
	a := New(Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Metrics: NewMetrics(registry)})
	p, _ := newPod(t, interception.SystemRedirect)
	ctx, cancel := context.WithDeadline(t.Context(), time.Now()) // the runtime waits no longer
	defer cancel()
	if err := a.begin(ctx, p); err != nil {
		t.Fatal(err)
	}
	awaitIdle(t, a)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "shunt_node_sandbox_duration_seconds" && family.GetMetric()[0].GetHistogram().GetSampleCount() != 1 {
			t.Errorf("%d sandboxes counted, want 1", family.GetMetric()[0].GetHistogram().GetSampleCount())
		}
	}
}

// TestRefused checks that nothing is done for a pod of the node's network, or with an annotation that
// the injector does not write.
func TestRefused(t *testing.T) {
	netns.Require(t)
	a := newAgent(t, true)
	host, _ := newPod(t, interception.SystemRedirect)
	host.netns = ""
	if err := a.begin(t.Context(), host); err == nil || !strings.Contains(err.Error(), "the node's own network") {
		t.Errorf("%v", err)
	}
	forged, _ := newPod(t, interception.SystemRedirect)
	forged.text = `["--backend=nftables","--netns=/proc/1/ns/net"]`
	if err := a.begin(t.Context(), forged); err == nil || !strings.Contains(err.Error(), podplan.RulesKey) {
		t.Errorf("%v", err)
	}
	if got := receiptIn(t, forged); got != (kernel.Receipt{}) {
		t.Errorf("receipt %+v", got)
	}
	if a.count() != 0 {
		t.Errorf("%d pods are watched", a.count())
	}
}

// TestTakeOver checks that pods that wait are set up when the runtime is back, and that others are not
// touched.
func TestTakeOver(t *testing.T) {
	netns.Require(t)
	a := newAgent(t, true)
	waiting, _ := newPod(t, interception.SystemRedirect)
	a.takeOver(waiting)
	awaitIdle(t, a)
	if got := receiptIn(t, waiting); got.State != kernel.ReceiptDone || got.Detail != lateDetail {
		t.Errorf("receipt %+v", got)
	}
	another := newAgent(t, true) // after a restart
	another.takeOver(waiting)
	awaitIdle(t, another)
	if got := testutil.ToFloat64(another.Metrics.setUps.WithLabelValues(late, resultDone)); got != 0 || another.count() != 1 {
		t.Errorf("%v set-ups, %d pods", got, another.count())
	}
	stopped, _ := newPod(t, interception.SystemRedirect)
	rules, err := stopped.rules()
	if err != nil {
		t.Fatal(err)
	}
	err = inNamespace(stopped.netns, func() error {
		return kernel.LeaveReceipt(kernel.Receipt{State: kernel.ReceiptBegun, Digest: rules.Digest()})
	})
	if err != nil {
		t.Fatal(err)
	}
	another.takeOver(stopped)
	awaitIdle(t, another)
	if got := receiptIn(t, stopped); got.State != kernel.ReceiptDone {
		t.Errorf("of a set-up that was cut short: %+v", got)
	}
}

// TestChanged checks what is done about rules that somebody has deleted.
func TestChanged(t *testing.T) {
	netns.Require(t)
	for _, repairs := range []bool{true, false} {
		a := newAgent(t, repairs)
		p, ns := newPod(t, interception.SystemRedirect)
		a.takeOver(p)
		awaitIdle(t, a)
		a.compare(p)
		deleteTable(t, ns)
		a.compare(p)
		awaitIdle(t, a)
		rules, err := p.rules()
		if err != nil {
			t.Fatal(err)
		}
		found, err := drift(t.Context(), p, rules)
		if err != nil || (len(found.Findings) == 0) != repairs {
			t.Errorf("repairs %v: %q, %v", repairs, found.Findings, err)
		}
		for result, want := range map[string]float64{comparedSame: 1, comparedChanged: 1, comparedFailed: 0} {
			if got := testutil.ToFloat64(a.Metrics.comparisons.WithLabelValues(result)); got != want {
				t.Errorf("repairs %v: %v comparisons are %s, want %v", repairs, got, result, want)
			}
		}
	}
}

// TestDriftReasons checks what the metric says of changes that somebody makes in a pod.
func TestDriftReasons(t *testing.T) {
	netns.Require(t, "nft", "ip", "sysctl")
	for want, change := range map[kernel.Cause]string{
		kernel.CauseGone:    "nft delete table ip shunt",
		kernel.CauseMissing: "nft flush chain ip shunt mangle_SHUNT_INBOUND",
		kernel.CauseChanged: "nft add rule ip shunt mangle_SHUNT_INBOUND counter accept",
		kernel.CauseRouting: "ip rule del fwmark 0x539 table 133",
		kernel.CauseForeign: "nft 'add table ip theirs; add chain ip theirs c { type nat hook output priority -110; }; " +
			"add rule ip theirs c tcp dport 80 redirect to :9'",
		kernel.CauseSettings: "sysctl -qw net.ipv4.tcp_syncookies=2",
	} {
		a := newAgent(t, false)
		p, ns := newPod(t, interception.SystemTProxy)
		a.takeOver(p)
		awaitIdle(t, a)
		if said, err := ns.Command(t.Context(), "sh", "-c", change).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", change, err, said)
		}
		a.compare(p)
		for _, cause := range kernel.Causes() {
			got := testutil.ToFloat64(a.Metrics.drift.WithLabelValues(string(cause)))
			if (got == 1) != (cause == want) {
				t.Errorf("%s: reason %s counted %v times, want %s once", change, cause, got, want)
			}
		}
	}
}

// TestSysctls checks that the sysctls on which TPROXY without conntrack rests are set in the pod's
// network namespace and in no other, and that one that somebody has changed is put right.
func TestSysctls(t *testing.T) {
	netns.Require(t)
	a := newAgent(t, true)
	p, ns := newPod(t, interception.SystemTProxy)
	other, err := netns.New("other")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	spec := interception.DefaultFor(interception.SystemTProxy)
	spec.NoConntrack = true
	p.text = interception.NodeRules{Spec: spec, IPv6: interception.IPv6Auto}.String()
	a.takeOver(p)
	awaitIdle(t, a)
	if got := receiptIn(t, p); got.State != kernel.ReceiptDone {
		t.Fatalf("receipt %+v", got)
	}
	sysctls := func(ns *netns.NS) string {
		out, err := ns.Command(t.Context(), "cat", "/proc/sys/net/ipv4/tcp_fwmark_accept",
			"/proc/sys/net/ipv4/fwmark_reflect", "/proc/sys/net/ipv6/fwmark_reflect").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return strings.Join(strings.Fields(string(out)), " ")
	}
	for _, name := range []string{"net/ipv4/tcp_fwmark_accept", "net/ipv4/fwmark_reflect", "net/ipv6/fwmark_reflect"} {
		if inPod, elsewhere := sysctls(ns), sysctls(other); inPod != "1 1 1" || elsewhere != "0 0 0" {
			t.Errorf("the pod has %s, another namespace %s", inPod, elsewhere)
		}
		if err := ns.Sysctl(name, "0"); err != nil {
			t.Fatal(err)
		}
		a.compare(p)
		awaitIdle(t, a)
	}
	if got := sysctls(ns); got != "1 1 1" {
		t.Errorf("after repairs the pod has %s", got)
	}
	if got := testutil.ToFloat64(a.Metrics.setUps.WithLabelValues(repair, resultDone)); got != 3 {
		t.Errorf("%v repairs, want 3", got)
	}
	if got := testutil.ToFloat64(a.Metrics.drift.WithLabelValues(string(kernel.CauseSettings))); got != 3 {
		t.Errorf("%v findings about settings, want 3", got)
	}
}

// TestGone checks that a pod that has ended is forgotten.
func TestGone(t *testing.T) {
	netns.Require(t)
	a := newAgent(t, true)
	p, _ := newPod(t, interception.SystemRedirect)
	p.netns = fmt.Sprintf("/proc/%d/fd/no-such-namespace", os.Getpid())
	a.remember(p)
	a.compare(p)
	if a.count() != 0 {
		t.Errorf("%d pods are watched", a.count())
	}
}

func TestPodOf(t *testing.T) {
	sandbox := &api.PodSandbox{
		Id: "s", Name: "cart", Namespace: "shop", Uid: "1", Annotations: map[string]string{podplan.RulesKey: "[]"},
		Linux: &api.LinuxPodSandbox{Namespaces: []*api.LinuxNamespace{{Type: "ipc"}, {Type: "network", Path: "/var/run/netns/a"}}},
	}
	want := pod{namespace: "shop", name: "cart", uid: "1", sandbox: "s", netns: "/var/run/netns/a", text: "[]"}
	if got, wanted := podOf(sandbox); got != want || !wanted {
		t.Errorf("%+v, wanted %v", got, wanted)
	}
	if _, wanted := podOf(&api.PodSandbox{}); wanted {
		t.Error("a sandbox without the annotation is set up")
	}
}

// BenchmarkNode sets 250 pods up one after the other, and compares them all: what a full node costs.
func BenchmarkNode(b *testing.B) {
	netns.Require(b)
	const full = 250
	a := newAgent(b, true)
	a.Log = slog.New(slog.DiscardHandler)
	var pods []pod
	for range full {
		p, _ := newPod(b, interception.SystemRedirect)
		pods = append(pods, p)
	}
	for b.Loop() {
		var took []time.Duration
		before := processorTime(b)
		for _, p := range pods {
			start := time.Now()
			if err := a.begin(context.Background(), p); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(start))
		}
		for _, p := range pods {
			awaitReceipt(b, p)
		}
		slices.Sort(took)
		setUp := processorTime(b) - before
		before = processorTime(b)
		for _, p := range pods {
			a.compare(p)
		}
		compared := processorTime(b) - before
		b.ReportMetric(float64(took[full/2].Microseconds())/1000, "ms-p50/sandbox")
		b.ReportMetric(float64(took[full*99/100].Microseconds())/1000, "ms-p99/sandbox")
		b.ReportMetric(float64(setUp.Milliseconds())/full, "cpu-ms/pod-set-up")
		b.ReportMetric(float64(compared.Milliseconds())/full, "cpu-ms/pod-compared")
	}
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
