//go:build linux

package e2e_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// full is how many pods of one container that only waits make the node full, beside those of the
// system.
const full = 240

// measureCost fills the node with pods, of which half have rules of the agent: how long do their sandboxes
// take? Then all have rules: what does the agent take?
func measureCost(ctx SpecContext) {
	asks := newRestrictedPod(newNodeNamespace(ctx, "restricted"), "asks")
	Expect(api.Create(ctx, asks, client.DryRunAll)).To(Succeed())
	namespace := newNamespace(ctx, false)
	DeferCleanup(func(ctx SpecContext) {
		kubectl(ctx, "-n", namespace, "delete", "pods", "--all", "--timeout=10m")
	}, NodeTimeout(10*time.Minute))
	start := func(kind string, number int) {
		pod := newPod(namespace, fmt.Sprintf("%s-%d", kind, number))
		pod.Labels["kind"] = kind
		if kind == "with" {
			pod.Annotations[rulesKey] = asks.Annotations[rulesKey]
		}
		pod.Spec.Containers[0].Image, pod.Spec.Containers[0].Args = "shunt.dev/pause:node", nil
		create(ctx, pod)
		// One sandbox at a time: how long it waits for others is not the question.
		Eventually(ctx, func() map[string]time.Duration { return sandboxes(namespace) }).
			WithTimeout(90 * time.Second).WithPolling(100 * time.Millisecond).Should(HaveKey(pod.Name))
	}
	kubectl(ctx, "-n", agentSystem, "rollout", "restart", "daemonset/shunt-node") // a process that has set nobody up
	rolledOut(ctx, agentSystem, "daemonset/shunt-node")
	processor := metric(ctx, "process_cpu_seconds_total")
	for number := range full / 2 {
		start("without", number)
		start("with", number)
	}
	load := load()
	took := map[string][]time.Duration{}
	for name, duration := range sandboxes(namespace) {
		kind, _, _ := strings.Cut(name, "-")
		took[kind] = append(took[kind], duration)
	}
	for _, durations := range took {
		slices.Sort(durations)
		Expect(durations).To(HaveLen(full / 2))
	}
	kubectl(ctx, "-n", namespace, "delete", "pods", "--selector=kind=without", "--timeout=10m")
	for number := range full / 2 {
		start("with", full/2+number)
	}
	awaitMetric(ctx, `shunt_node_setups_total{result="done",when="start"}`, full)
	processor = metric(ctx, "process_cpu_seconds_total") - processor
	waited := sandboxWaits(ctx)
	Expect(waited.count()).To(BeNumerically(">=", full)) // more, where kubelet has tried again
	resident := metric(ctx, "process_resident_memory_bytes")

	By("another agent, which compares all of them often")
	withArguments(ctx, "--resync=5s")
	awaitMetric(ctx, "shunt_node_pods", full)
	const same = `shunt_node_comparisons_total{result="same"}`
	awaitMetric(ctx, same, full)
	compared, before := metric(ctx, same), metric(ctx, "process_cpu_seconds_total")
	awaitMetric(ctx, same, compared+3*full)
	comparison := (metric(ctx, "process_cpu_seconds_total") - before) / (metric(ctx, same) - compared)
	text := fmt.Sprintf("Measured on %d CPUs, which have %s programs at work; %d pods of each kind, in turn. Then %d pods with rules.\n\n",
		runtime.NumCPU(), load, full/2, full) +
		"| what | p50 | p99 |\n|---|--:|--:|\n" +
		row("a sandbox of a pod with rules, by containerd's log", quantileOf(took["with"], 0.5), quantileOf(took["with"], 0.99)) +
		row("a sandbox of a pod without", quantileOf(took["without"], 0.5), quantileOf(took["without"], 0.99)) +
		row("what it waits for its rules, by `shunt_node_sandbox_duration_seconds`",
			seconds(waited.quantile(0.5)), seconds(waited.quantile(0.99))) +
		fmt.Sprintf("\n| the agent, with %d pods | |\n|---|--:|\n", full) +
		fmt.Sprintf("| resident memory, after it has set them up | %.0f MB |\n", resident/1e6) +
		fmt.Sprintf("| resident memory of one that only compares them | %.0f MB |\n", metric(ctx, "process_resident_memory_bytes")/1e6) +
		fmt.Sprintf("| CPU of a set-up, with all probes | %.1f ms |\n", 1000*processor/full) +
		fmt.Sprintf("| CPU of a comparison | %.1f ms |\n", 1000*comparison) +
		fmt.Sprintf("| CPU of comparing all, every five minutes | %.2f %% of one |\n", 100*full*comparison/(5*time.Minute).Seconds())
	AddReportEntry(text)
	withArguments(ctx)
	if *record {
		write("node.md", "sandboxes", text)
	}
}

// sandboxRun matches the lines in containerd's log that have the begin and the end of a sandbox's making.
var sandboxRun = regexp.MustCompile(
	`^time="([^"]+)" .*msg="RunPodSandbox for name:\\"([^"\\]+)\\" .*namespace:\\"([^"\\]+)\\"( returns sandbox id)?`)

// sandboxes returns how long the sandboxes of a namespace's pods took.
func sandboxes(namespace string) map[string]time.Duration {
	GinkgoHelper()
	text, err := os.ReadFile("/run/node/log/containerd.log")
	Expect(err).NotTo(HaveOccurred())
	begun, took := map[string]time.Time{}, map[string]time.Duration{}
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, namespace) {
			continue
		}
		run := sandboxRun.FindStringSubmatch(line)
		if run == nil {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, run[1])
		Expect(err).NotTo(HaveOccurred())
		if name := run[2]; run[4] == "" {
			begun[name] = at
		} else {
			took[name] = at.Sub(begun[name])
		}
	}
	return took
}

// sandboxWaits returns the agent's histogram of how long sandboxes waited for their rules.
func sandboxWaits(ctx context.Context) histogram {
	GinkgoHelper()
	pod := kubectl(ctx, "-n", agentSystem, "get", "pods", "-o", "jsonpath={.items[0].metadata.name}")
	families, err := metrics(ctx, "/api/v1/namespaces/"+agentSystem+"/pods/"+pod+":8080/proxy/metrics")
	Expect(err).NotTo(HaveOccurred())
	waits := histogram{totals: map[float64]uint64{}}
	for _, counted := range families["shunt_node_sandbox_duration_seconds"].GetMetric() {
		waits.add(counted.GetHistogram())
	}
	return waits
}

// awaitMetric waits until one of the agent's metrics has risen to a value.
func awaitMetric(ctx context.Context, name string, value float64) {
	GinkgoHelper()
	Eventually(ctx, func() float64 { return metric(ctx, name) }).
		WithTimeout(5*time.Minute).WithPolling(time.Second).Should(BeNumerically(">=", value), name)
}
