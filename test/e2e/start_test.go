package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// starts is how many pods are started with the proxy, and how many without.
const starts = 10

var _ = Describe("on the node, at scale,", Label(node), func() {
	It("pods start one after the other, with no failed probe, and what Shunt adds is known part by part", func(ctx SpecContext) {
		tasks := watchTasks(ctx)
		namespaces := map[bool]string{false: newNamespace(ctx, false), true: newNamespace(ctx, true)}
		all := map[bool][]podStart{}
		for number := range starts + 1 {
			for _, injected := range []bool{false, true} {
				// kubelet lists containers once a second. What begins when a pod has gone
				// would always meet it at the same moment.
				time.Sleep(time.Duration(number) * time.Second / starts)
				parts := startPod(ctx, tasks, namespaces[injected], number)
				if number > 0 { // kubelet has just started, and puts off probes for a while
					all[injected] = append(all[injected], parts)
				}
			}
		}
		expectNoFailedProbe(ctx, namespaces[true])

		table := "| what | with Shunt: p50 | least | most | without: p50 | least | most |\n|---|--:|--:|--:|--:|--:|--:|\n"
		for _, part := range startParts {
			table += "| " + part
			for _, injected := range []bool{true, false} {
				table += " | " + spread(all[injected], part)
			}
			table += " |\n"
		}
		AddReportEntry(fmt.Sprintf("%d starts:\n%s", starts, table))
		if *record {
			write("performance.md", "start", fmt.Sprintf(
				"Measured on %d CPUs, which have %s programs at work; %d pods of each kind, in turn.\n\n",
				runtime.NumCPU(), load(), starts)+table)
		}
	})
})

// Parts of a pod's start, in their order.
const (
	partBefore    = "creation to the start of the first container"
	partInit      = "`shunt-init` runs"
	partGap       = "the end of `shunt-init` to the start of the proxy"
	partProxy     = "the start of the proxy to its readiness"
	partApp       = "the proxy's readiness to the start of the app"
	partAvailable = "the start of the app to Available"
	partAll       = "creation to Available"
)

var startParts = []string{partBefore, partInit, partGap, partProxy, partApp, partAvailable, partAll}

// podStart is how long each part of a pod's start took.
type podStart map[string]time.Duration

// spread returns the median of a part, the least and the most of it, as cells of a table.
func spread(of []podStart, part string) string {
	values := []time.Duration{}
	for _, one := range of {
		if value, ok := one[part]; ok {
			values = append(values, value)
		}
	}
	if len(values) == 0 {
		return " | | "
	}
	slices.Sort(values)
	cells := []string{}
	for _, quantile := range []float64{0.5, 0, 1} {
		cells = append(cells, fmt.Sprintf("%d ms", quantileOf(values, quantile).Milliseconds()))
	}
	return strings.Join(cells, " | ")
}

// startPod runs a Deployment of one pod until it is Available, deletes it, and returns how long each
// part of its start took.
func startPod(ctx context.Context, tasks *taskEvents, namespace string, number int) podStart {
	GinkgoHelper()
	deployment := newDeployment(namespace, fmt.Sprintf("start-%d", number))
	readiness := make(chan time.Time, 1)
	begun := time.Now()
	create(ctx, deployment)
	go func() { readiness <- proxyReady(ctx, namespace, deployment.Name) }()
	Eventually(ctx, func(g Gomega) {
		g.Expect(api.Get(ctx, client.ObjectKeyFromObject(deployment), deployment)).To(Succeed())
		g.Expect(deployment.Status.Conditions).To(ContainElement(And(
			HaveField("Type", appsv1.DeploymentAvailable), HaveField("Status", corev1.ConditionTrue))))
	}).WithTimeout(90 * time.Second).WithPolling(10 * time.Millisecond).Should(Succeed())
	available := time.Now()
	pod := podOf(ctx, namespace, deployment.Name)
	ids := containerIDs(pod)
	app := tasks.at(ctx, "/tasks/start", ids["app"])
	parts := podStart{partAll: available.Sub(begun), partAvailable: available.Sub(app)}
	if !injected(pod) {
		parts[partBefore] = app.Sub(begun)
	} else {
		initBegun, initEnded := tasks.at(ctx, "/tasks/start", ids["shunt-init"]), tasks.at(ctx, "/tasks/exit", ids["shunt-init"])
		proxy, answered := tasks.at(ctx, "/tasks/start", ids["shunt-proxy"]), <-readiness
		parts[partBefore], parts[partInit], parts[partGap] = initBegun.Sub(begun), initEnded.Sub(initBegun), proxy.Sub(initEnded)
		parts[partProxy], parts[partApp] = answered.Sub(proxy), app.Sub(answered)
	}
	GinkgoWriter.Println(pod.Name, parts)
	Expect(api.Delete(ctx, deployment)).To(Succeed())
	Eventually(ctx, func(g Gomega) {
		pods := &corev1.PodList{}
		g.Expect(api.List(ctx, pods, client.InNamespace(namespace), client.MatchingLabels(pod.Labels))).To(Succeed())
		g.Expect(pods.Items).To(BeEmpty())
	}).WithTimeout(60 * time.Second).WithPolling(100 * time.Millisecond).Should(Succeed())
	return parts
}

// proxyReady returns when the proxy of the one pod with a name's label first said that it is ready.
func proxyReady(ctx context.Context, namespace, name string) time.Time {
	address := ""
	for ctx.Err() == nil {
		pods := &corev1.PodList{}
		if address == "" {
			err := api.List(ctx, pods, client.InNamespace(namespace), client.MatchingLabels{"e2e": name})
			if err == nil && len(pods.Items) > 0 {
				address = pods.Items[0].Status.PodIP
			}
		}
		if address != "" && healthy(ctx, address) {
			return time.Now()
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Time{}
}

// impatient gives up soon: a first packet that shunt-init has cut off is sent again after a second.
var impatient = http.Client{Timeout: 100 * time.Millisecond, Transport: &http.Transport{DisableKeepAlives: true}}

// healthy reports whether the proxy at an address says that it is ready.
func healthy(ctx context.Context, address string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(address, "15021")+"/healthz/ready", nil)
	if err != nil {
		return false
	}
	answer, err := impatient.Do(request)
	if err != nil {
		return false
	}
	_ = answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// containerIDs returns the ids of a pod's containers, as containerd has them.
func containerIDs(pod *corev1.Pod) map[string]string {
	ids := map[string]string{}
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		_, ids[status.Name], _ = strings.Cut(status.ContainerID, "://")
	}
	return ids
}

// expectNoFailedProbe checks that no probe has failed in a namespace of healthy pods.
func expectNoFailedProbe(ctx context.Context, namespace string) {
	GinkgoHelper()
	events := &corev1.EventList{}
	Expect(api.List(ctx, events, client.InNamespace(namespace))).To(Succeed())
	Expect(events.Items).NotTo(BeEmpty())
	for _, event := range events.Items {
		about := event.InvolvedObject
		Expect(event.Reason).NotTo(Equal("Unhealthy"), "%s, %s: %s", about.Name, about.FieldPath, event.Message)
	}
}

// taskEvents are containerd's events, which have the time of each start and exit of a container in
// nanoseconds. A pod's status has seconds.
type taskEvents struct {
	mu    sync.Mutex
	lines []string
}

// watchTasks reads containerd's events until the spec ends.
func watchTasks(ctx context.Context) *taskEvents {
	GinkgoHelper()
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	command := exec.CommandContext(watching, "ctr", "--namespace", "k8s.io", "events")
	out, err := command.StdoutPipe()
	Expect(err).NotTo(HaveOccurred())
	Expect(command.Start()).To(Succeed())
	seen, ended := &taskEvents{}, make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			seen.mu.Lock()
			seen.lines = append(seen.lines, lines.Text())
			seen.mu.Unlock()
		}
	}()
	DeferCleanup(func() {
		stop()
		<-ended
		_ = command.Wait() // killed
	})
	// containerd sends what happens after the subscription.
	Eventually(ctx, func() []string {
		output(ctx, "ctr", "--namespace", "k8s.io", "namespaces", "label", "k8s.io", "watched=true")
		return seen.all()
	}).WithTimeout(30 * time.Second).WithPolling(100 * time.Millisecond).ShouldNot(BeEmpty())
	return seen
}

func (e *taskEvents) all() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.lines)
}

// taskEvent has the process of an event: /tasks/exit is also sent for the end of a probe or hook.
type taskEvent struct {
	ContainerID string `json:"container_id"`
	ID          string `json:"id"`
}

// at returns when an event happened to a container's first process.
func (e *taskEvents) at(ctx context.Context, topic, container string) (at time.Time) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		found := false
		for _, line := range e.all() {
			// 2026-01-02 15:04:05.123456789 +0000 UTC k8s.io /tasks/start {"container_id":"..."}
			words := strings.SplitN(line, " ", 7)
			if len(words) < 7 || words[5] != topic {
				continue
			}
			var event taskEvent
			g.Expect(json.Unmarshal([]byte(words[6]), &event)).To(Succeed(), line)
			if event.ContainerID == container && (event.ID == "" || event.ID == container) {
				var err error
				at, err = time.Parse("2006-01-02 15:04:05.999999999 -0700", strings.Join(words[:3], " "))
				g.Expect(err).NotTo(HaveOccurred(), line)
				found = true
			}
		}
		g.Expect(found).To(BeTrue(), "containerd has sent no %s of %s", topic, container)
	}).WithTimeout(20 * time.Second).WithPolling(50 * time.Millisecond).Should(Succeed())
	return at
}
