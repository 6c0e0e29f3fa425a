//go:build linux

package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/nftables"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	agentSystem   = "shunt-node"
	agentManifest = "../../config/node"
	rulesKey      = "shunt.dev/rules"
	fromKey       = "shunt.dev/interceptFrom"
	enforceKey    = "pod-security.kubernetes.io/enforce"
)

// forgedRules are rules that leave out everything that goes out.
const forgedRules = `["-x","0.0.0.0/0,::/0","--backend=nftables"]`

// These specs need NRI, and look at the node's processes.
var _ = Describe("the agent on the node", Ordered, Label(agent), func() {
	BeforeAll(func(ctx SpecContext) {
		withArguments(ctx)
	}, NodeTimeout(2*time.Minute))
	AfterAll(func(ctx SpecContext) {
		kubectl(ctx, "delete", "--wait", "--timeout=120s", "-k", agentManifest)
	}, NodeTimeout(2*time.Minute))

	It("intercepts REDIRECT pods of a namespace that enforces restricted", Label(short), func(ctx SpecContext) {
		namespace := newNodeNamespace(ctx, "restricted")
		before := listings(ctx)
		create(ctx, newRestrictedPod(namespace, "server"), newRestrictedPod(namespace, "client"))
		server, client := ready(ctx, namespace, "server"), ready(ctx, namespace, "client")
		for _, pod := range []*corev1.Pod{server, client} {
			Expect(injected(pod)).To(BeTrue())
			for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
				Expect(container.SecurityContext.Capabilities.Add).To(BeEmpty(), container.Name)
				Expect(*container.SecurityContext.RunAsNonRoot).To(BeTrue(), container.Name)
			}
			expectIntercepted(ctx, namespace, pod.Name)
		}
		for _, ip := range server.Status.PodIPs {
			Expect(call(ctx, namespace, "client", url(ip.IP, "8080"))).To(Equal(proxies[!strings.Contains(ip.IP, ":")]), ip.IP)
		}
		Expect(listings(ctx)).To(Equal(before), "the node's own rules")
		Expect(metric(ctx, `shunt_node_setups_total{result="done",when="start"}`)).To(BeNumerically(">=", 2))
	})

	It("intercepts TPROXY pods, and leaves those of interceptFrom: pod and hostNetwork alone", Label(short), func(ctx SpecContext) {
		namespace, other, calls := newNodeNamespace(ctx, "privileged"), newNamespace(ctx, true), newLedger(ctx)
		tproxy, host, before := newPod(namespace, "tproxy"), newPod(namespace, "host"), listings(ctx)
		tproxy.Annotations[modeKey] = "TPROXY"
		host.Spec.HostNetwork = true
		create(ctx, tproxy, host, newPod(namespace, "client"), newPod(other, "own"))
		client := ready(ctx, namespace, "client")
		Expect(call(ctx, namespace, "client", url(ready(ctx, namespace, "tproxy").Status.PodIP, "8080"))).To(Equal(client.Status.PodIP))
		own := ready(ctx, other, "own")
		Expect(own.Annotations).NotTo(HaveKey(rulesKey))
		Expect(own.Spec.InitContainers[0].SecurityContext.Capabilities.Add).To(ContainElement(corev1.Capability("NET_ADMIN")))
		Expect(call(ctx, namespace, "client", url(own.Status.PodIP, "8080"))).To(Equal(proxies[true]))
		host = ready(ctx, namespace, "host")
		Expect(injected(host)).To(BeFalse())
		Expect(host.Annotations).NotTo(HaveKey(rulesKey))
		for pod, direct := range map[string]bool{"tproxy": false, "client": false, "host": true} {
			Expect(calls.tells(ctx, namespace, pod)).To(Equal(direct), pod)
		}
		Expect(listings(ctx)).To(Equal(before), "the node's own rules")
		Expect(output(ctx, "ip", "link", "show", "lo")).NotTo(ContainSubstring("shunt"), "a receipt")
	})

	It("denies and survives forged annotations", func(ctx SpecContext) {
		namespace := newNodeNamespace(ctx, "privileged")
		forged := newPod(namespace, "forged")
		forged.Annotations[rulesKey] = forgedRules
		Expect(api.Create(ctx, forged)).To(MatchError(ContainSubstring("only the injector tells the node's agent what to do")))

		By("changed before the pod is scheduled: the gate has the arguments that the injector wrote")
		pod := newPod(namespace, "changed")
		pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "shunt.dev/test"}}
		create(ctx, pod)
		kubectl(ctx, "-n", namespace, "annotate", "--overwrite", "pod", "changed", rulesKey+"="+forgedRules)
		kubectl(ctx, "-n", namespace, "patch", "pod", "changed", "--type=json", "-p", `[{"op":"remove","path":"/spec/schedulingGates"}]`)
		gateSays(ctx, namespace, "changed", "somebody has changed the pod's annotation")

		By("where no injector sees the pod: nothing but the pod's own namespace changes")
		exempt, before := newNamespace(ctx, false), listings(ctx)
		host, other := newPod(exempt, "host"), newPod(exempt, "other")
		host.Spec.HostNetwork = true
		host.Annotations[rulesKey] = forgedRules
		other.Annotations[rulesKey] = `["--backend=nftables","--netns=/proc/1/ns/net","--share=/etc"]`
		create(ctx, host, other)
		for _, name := range []string{"host", "other"} {
			hasEvent(ctx, exempt, name, "InterceptionRefused")
		}
		Expect(listings(ctx)).To(Equal(before), "the node's own rules")
	})

	It("is stopped while pods start: none runs open, and all come up when it goes on", func(ctx SpecContext) {
		underDisturbance(ctx, func(pods *startingPods) {
			process := agentProcess(ctx)
			Expect(syscall.Kill(process, syscall.SIGSTOP)).To(Succeed())
			defer func() { _ = syscall.Kill(process, syscall.SIGCONT) }()
			pods.create(ctx)
			time.Sleep(10 * time.Second) // how long it is stuck, which is more than the runtime waits
			pods.oneWaits(ctx)
		})
	}, NodeTimeout(15*time.Minute))

	It("is killed while pods start, twice: none runs open, and all come up", func(ctx SpecContext) {
		underDisturbance(ctx, func(pods *startingPods) {
			Expect(syscall.Kill(agentProcess(ctx), syscall.SIGKILL)).To(Succeed())
			pods.create(ctx)
			pods.ledger.awaits(ctx, disturbed/5)
			rolledOut(ctx, agentSystem, "daemonset/shunt-node")
			Expect(syscall.Kill(agentProcess(ctx), syscall.SIGKILL)).To(Succeed())
		})
	}, NodeTimeout(15*time.Minute))

	It("is rolled out while pods start: none runs open, and all come up", func(ctx SpecContext) {
		underDisturbance(ctx, func(pods *startingPods) {
			kubectl(ctx, "-n", agentSystem, "rollout", "restart", "daemonset/shunt-node")
			pods.create(ctx)
			rolledOut(ctx, agentSystem, "daemonset/shunt-node")
		})
	}, NodeTimeout(15*time.Minute))

	It("loses containerd while pods start: none runs open, and all come up", func(ctx SpecContext) {
		underDisturbance(ctx, func(pods *startingPods) {
			pods.create(ctx)
			pods.ledger.awaits(ctx, disturbed/5)
			text, err := os.ReadFile("/run/node/containerd.pid")
			Expect(err).NotTo(HaveOccurred())
			process, err := strconv.Atoi(strings.TrimSpace(string(text)))
			Expect(err).NotTo(HaveOccurred())
			Expect(syscall.Kill(process, syscall.SIGKILL)).To(Succeed())
		})
	}, NodeTimeout(15*time.Minute))

	It("tells of rules that somebody has flushed, and puts them back unless it is to tell only", func(ctx SpecContext) {
		namespace, calls := newNodeNamespace(ctx, "restricted"), newLedger(ctx)
		withArguments(ctx, "--resync=1s", "--on-change=report")
		create(ctx, newRestrictedPod(namespace, "told"), newRestrictedPod(namespace, "repaired"))
		told, repaired := ready(ctx, namespace, "told"), ready(ctx, namespace, "repaired")
		Expect(calls.tells(ctx, namespace, "told")).To(BeFalse())
		flush(ctx, told)
		hasEvent(ctx, namespace, "told", "InterceptionChanged")
		const changed = `shunt_node_comparisons_total{result="changed"}`
		seen := metric(ctx, changed)
		Eventually(ctx, func() float64 { return metric(ctx, changed) }).
			WithTimeout(60 * time.Second).WithPolling(time.Second).Should(BeNumerically(">", seen+2))
		Expect(calls.tells(ctx, namespace, "told")).To(BeTrue(), "it was to tell only")

		withArguments(ctx, "--resync=1s", "--on-change=repair")
		Eventually(ctx, func() bool { return calls.tells(ctx, namespace, "told") }).
			WithTimeout(60 * time.Second).WithPolling(time.Second).Should(BeFalse())
		flush(ctx, repaired)
		hasEvent(ctx, namespace, "repaired", "InterceptionChanged")
		Eventually(ctx, func() bool { return calls.tells(ctx, namespace, "repaired") }).
			WithTimeout(60 * time.Second).WithPolling(time.Second).Should(BeFalse())
		Expect(metric(ctx, `shunt_node_setups_total{result="done",when="repair"}`)).To(BeNumerically(">=", 2))
		for _, pod := range []*corev1.Pod{told, repaired} {
			Expect(ready(ctx, namespace, pod.Name).Status.ContainerStatuses[0].RestartCount).To(BeZero(), pod.Name)
		}
		withArguments(ctx)
	}, NodeTimeout(10*time.Minute))

	It("costs a sandbox and the node what its page says", measureCost, NodeTimeout(30*time.Minute))

	It("is not there: pods wait, say so, and come up when it is", func(ctx SpecContext) {
		schedule := func(value string) {
			kubectl(ctx, "-n", agentSystem, "patch", "daemonset", "shunt-node", "--type=merge", "-p",
				`{"spec":{"template":{"spec":{"nodeSelector":{"shunt.dev/test":`+value+`}}}}}`)
		}
		schedule(`"nowhere"`)
		defer schedule("null")
		Eventually(ctx, func() string {
			return kubectl(ctx, "-n", agentSystem, "get", "pods", "-o", "name")
		}).WithTimeout(60 * time.Second).WithPolling(500 * time.Millisecond).Should(BeEmpty())
		namespace := newNodeNamespace(ctx, "restricted")
		create(ctx, newRestrictedPod(namespace, "waits"))
		gateSays(ctx, namespace, "waits", "there is no shunt-node on this node")
		schedule("null")
		rolledOut(ctx, agentSystem, "daemonset/shunt-node")
		ready(ctx, namespace, "waits")
		expectIntercepted(ctx, namespace, "waits")
	})
})

var _ = Describe("another installation, with the agent on the node,", Serial, Label(agent), func() {
	It("by Helm intercepts from pods and from the node, and leaves nothing", func(ctx SpecContext) {
		const release = "shunt"
		gone := func(ctx context.Context) {
			output(ctx, "helm", "uninstall", release, "--namespace", system, "--ignore-not-found", "--wait", "--timeout", "2m")
			kubectl(ctx, "delete", "namespace", system, "--ignore-not-found", "--timeout=120s") // which Helm leaves
		}
		DeferCleanup(func(ctx SpecContext) { install(ctx, current) }, NodeTimeout(5*time.Minute))
		uninstall(ctx, current)
		DeferCleanup(gone, NodeTimeout(5*time.Minute)) // before the other is installed again
		output(ctx, "helm", "install", release, "../../charts/shunt", "--namespace", system, "--create-namespace",
			"--wait", "--timeout", "3m", "--set", "injector.initImage="+initImage, "--set", "node.enabled=true")
		kubectl(ctx, "label", "namespace", system, enforceKey+"=restricted")
		answers(ctx)
		byNode, byPod := newNodeNamespace(ctx, "restricted"), newNamespace(ctx, true)
		create(ctx, newRestrictedPod(byNode, "client"), newPod(byPod, "server"))
		client, server := ready(ctx, byNode, "client"), ready(ctx, byPod, "server")
		expectIntercepted(ctx, byNode, "client")
		Expect(call(ctx, byNode, "client", url(server.Status.PodIP, "8080"))).To(Equal(proxies[true]))
		Expect(call(ctx, byPod, "server", url(client.Status.PodIP, "8080"))).To(Equal(proxies[true]))
		gone(ctx)
		expectNothingLeft(ctx)
	}, NodeTimeout(10*time.Minute))
})

// newNodeNamespace makes a namespace whose pods the node's agent sets up, and which enforces a level of
// Pod Security.
func newNodeNamespace(ctx context.Context, level string) string {
	GinkgoHelper()
	name := newNamespace(ctx, true)
	kubectl(ctx, "annotate", "namespace", name, fromKey+"=node")
	kubectl(ctx, "label", "namespace", name, enforceKey+"="+level)
	// The webhook watches namespaces: it may still see it as it was.
	Eventually(ctx, func(g Gomega) {
		pod := newRestrictedPod(name, "asks")
		g.Expect(api.Create(ctx, pod, client.DryRunAll)).To(Succeed())
		g.Expect(pod.Annotations).To(HaveKey(rulesKey))
	}).WithTimeout(30 * time.Second).WithPolling(100 * time.Millisecond).Should(Succeed())
	return name
}

// newRestrictedPod returns the pod of newPod as the level restricted has it.
func newRestrictedPod(namespace, name string) *corev1.Pod {
	pod := newPod(namespace, name)
	pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
		RunAsNonRoot: new(true), RunAsUser: new(int64(1000)), AllowPrivilegeEscalation: new(false),
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	return pod
}

// disturbed is how many pods start under a disturbance; half of them are of Jobs.
const disturbed = 100

// startingPods are those that start under a disturbance. The first act of their applications is to
// call the ledger.
type startingPods struct {
	namespace string
	ledger    *ledger
}

func (s *startingPods) pod(name string, args ...string) *corev1.Pod {
	pod := newRestrictedPod(s.namespace, name)
	pod.Spec.Containers[0].Args = slices.Concat(args, s.ledger.addresses)
	pod.Annotations["sidecar.istio.io/proxyCPU"] = "1m" // a small node has room for all
	pod.Annotations["sidecar.istio.io/proxyMemory"] = "16Mi"
	return pod
}

// create makes them. The API server may not answer for a moment, as the webhook.
func (s *startingPods) create(ctx context.Context) {
	GinkgoHelper()
	for i := range disturbed {
		var object client.Object = s.pod(fmt.Sprintf("pod-%d", i), "serve")
		if i%2 == 0 {
			pod := s.pod(fmt.Sprintf("job-%d", i), "tell")
			pod.Spec.RestartPolicy = corev1.RestartPolicyNever
			object = &batchv1.Job{
				ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: pod.Name},
				Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{
					ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels, Annotations: pod.Annotations}, Spec: pod.Spec,
				}},
			}
		}
		Eventually(ctx, func() error { return client.IgnoreAlreadyExists(api.Create(ctx, object)) }).
			WithTimeout(30 * time.Second).WithPolling(200 * time.Millisecond).Should(Succeed())
	}
}

func (s *startingPods) list(ctx context.Context, g Gomega) []corev1.Pod {
	pods := &corev1.PodList{}
	g.Expect(api.List(ctx, pods, client.InNamespace(s.namespace))).To(Succeed())
	return pods.Items
}

// oneWaits waits until a gate has begun to wait.
func (s *startingPods) oneWaits(ctx context.Context) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		g.Expect(slices.ContainsFunc(s.list(ctx, g), func(pod corev1.Pod) bool {
			gates := pod.Status.InitContainerStatuses
			return injected(&pod) && len(gates) > 0 && gates[0].State.Running != nil
		})).To(BeTrue())
	}).WithTimeout(120 * time.Second).WithPolling(500 * time.Millisecond).Should(Succeed())
}

// come waits until all pods are ready and all Jobs complete.
func (s *startingPods) come(ctx context.Context) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		jobs, alone, waiting := &batchv1.JobList{}, 0, []string{}
		g.Expect(api.List(ctx, jobs, client.InNamespace(s.namespace))).To(Succeed())
		for _, job := range jobs.Items {
			if job.Status.Succeeded == 0 {
				waiting = append(waiting, fmt.Sprintf("%s: %+v", job.Name, job.Status))
			}
		}
		for _, pod := range s.list(ctx, g) {
			if len(pod.OwnerReferences) > 0 {
				continue
			}
			alone++
			if !isReady(&pod) {
				waiting = append(waiting, pod.Name+": "+conditions(&pod))
			}
		}
		g.Expect(waiting).To(BeEmpty())
		g.Expect(jobs.Items).To(HaveLen(disturbed / 2))
		g.Expect(alone).To(Equal(disturbed/2 + 1)) // and the one without the proxy
	}).WithTimeout(10 * time.Minute).WithPolling(2 * time.Second).Should(Succeed())
}

// underDisturbance creates pods and Jobs while something happens to the agent, and checks that each of
// them has started its application only behind a gate that had proved its rules, and that no
// application has made a connection past the proxy.
func underDisturbance(ctx context.Context, disturb func(*startingPods)) {
	GinkgoHelper()
	pods := &startingPods{namespace: newNodeNamespace(ctx, "restricted"), ledger: newLedger(ctx)}
	open := pods.pod("open", "serve")
	open.Labels["sidecar.istio.io/inject"] = "false"
	create(ctx, open)
	ready(ctx, pods.namespace, open.Name)
	start := time.Now()
	disturb(pods)
	pods.come(ctx)
	took := time.Since(start).Round(time.Second)
	pods.ledger.expectDirect(open.Name)

	told, failed := map[string]bool{}, 0
	for _, call := range pods.ledger.heard() {
		told[call.pod] = true
	}
	for _, pod := range pods.list(ctx, Default) {
		switch {
		case pod.Status.Phase == corev1.PodFailed: // of a Job, which makes another
			failed++
		case pod.Name != open.Name:
			expectBehindGate(&pod)
			Expect(told).To(HaveKey(pod.Name))
		}
		if pod.Status.Phase == corev1.PodRunning && pod.Name != open.Name {
			for _, ip := range pod.Status.PodIPs {
				Expect(whoCalls(ctx, ip.IP)).To(Equal(proxies[!strings.Contains(ip.IP, ":")]), pod.Name)
			}
		}
	}
	late := strings.Count(kubectl(ctx, "-n", pods.namespace, "logs", "--selector=e2e,e2e!=open", "-c", "shunt-init", "--tail=-1",
		"--ignore-errors"), "late: ")
	AddReportEntry(fmt.Sprintf("%d pods and Jobs came up in %s, %d of them set up late; %d pods of Jobs failed; "+
		"%d connections at the server and at the veths, direct: those of the pod without the proxy only",
		disturbed, took, late, failed, len(pods.ledger.heard())))
}

// whoCalls returns from which address an application is called if the node calls it.
func whoCalls(ctx context.Context, address string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url(address, "8080"), http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := (&http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return strings.TrimSpace(string(body)), err
}

// expectIntercepted checks that a running pod's application was started after its gate had proved the rules.
func expectIntercepted(ctx context.Context, namespace, name string) {
	GinkgoHelper()
	pod := &corev1.Pod{}
	Expect(api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, pod)).To(Succeed())
	expectBehindGate(pod)
	Expect(pod.Status.ContainerStatuses[0].RestartCount).To(BeZero(), name)
	Expect(gateLog(ctx, namespace, name)).To(MatchRegexp("set up by the node's agent.* verified"))
}

// expectBehindGate checks that a pod's application was started after its gate had passed. kubelet may count a restart of
// one that has never run: containerd forgets what it was about to start when it is killed.
func expectBehindGate(pod *corev1.Pod) {
	GinkgoHelper()
	gate, app := pod.Status.InitContainerStatuses[0], pod.Status.ContainerStatuses[0]
	Expect(gate.Name).To(Equal("shunt-init"))
	Expect(gate.State.Terminated).NotTo(BeNil(), pod.Name)
	Expect(gate.State.Terminated.ExitCode).To(BeZero(), pod.Name)
	started := metav1.Time{}
	if app.State.Running != nil {
		started = app.State.Running.StartedAt
	} else if app.State.Terminated != nil {
		started = app.State.Terminated.StartedAt
	}
	Expect(started.Time).NotTo(BeTemporally("<", gate.State.Terminated.FinishedAt.Time), pod.Name)
}

// hasEvent waits until there is an Event with a reason about a pod.
func hasEvent(ctx context.Context, namespace, pod, reason string) {
	GinkgoHelper()
	Eventually(ctx, func() string {
		return kubectl(ctx, "-n", namespace, "get", "events", "-o", "jsonpath={.items[*].reason}",
			"--field-selector", "involvedObject.name="+pod)
	}).WithTimeout(60 * time.Second).WithPolling(time.Second).Should(ContainSubstring(reason))
}

// withArguments installs the agent again, with further arguments or none.
func withArguments(ctx context.Context, args ...string) {
	GinkgoHelper()
	kubectl(ctx, "apply", "-k", agentManifest)
	for _, argument := range args {
		kubectl(ctx, "-n", agentSystem, "patch", "daemonset", "shunt-node", "--type=json", "-p",
			`[{"op":"add","path":"/spec/template/spec/containers/0/args/-","value":"`+argument+`"}]`)
	}
	rolledOut(ctx, agentSystem, "daemonset/shunt-node")
}

// flush deletes all rules of nf_tables in a pod, as nft flush ruleset does.
func flush(ctx context.Context, pod *corev1.Pod) {
	GinkgoHelper()
	namespace, err := os.Open(networkOf(ctx, pod))
	Expect(err).NotTo(HaveOccurred())
	defer namespace.Close()
	conn, err := nftables.New(nftables.WithNetNSFd(int(namespace.Fd())))
	Expect(err).NotTo(HaveOccurred())
	conn.FlushRuleset()
	Expect(conn.Flush()).To(Succeed())
}

func gateLog(ctx context.Context, namespace, name string) string {
	GinkgoHelper()
	return kubectl(ctx, "-n", namespace, "logs", name, "-c", "shunt-init")
}

// gateSays waits until a pod's gate has failed with a message, and checks that nothing else of the pod
// has run.
func gateSays(ctx context.Context, namespace, name, text string) {
	GinkgoHelper()
	pod := &corev1.Pod{}
	Eventually(ctx, func(g Gomega) {
		g.Expect(api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, pod)).To(Succeed())
		g.Expect(pod.Status.InitContainerStatuses).NotTo(BeEmpty())
		state := pod.Status.InitContainerStatuses[0].State
		if state.Terminated == nil {
			state = pod.Status.InitContainerStatuses[0].LastTerminationState
		}
		g.Expect(state.Terminated).NotTo(BeNil())
		g.Expect(state.Terminated.Message).To(ContainSubstring(text))
	}).WithTimeout(200 * time.Second).WithPolling(time.Second).Should(Succeed())
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses[1:], pod.Status.ContainerStatuses) {
		Expect(status.State.Waiting).NotTo(BeNil(), status.Name)
		Expect(status.LastTerminationState.Terminated).To(BeNil(), status.Name)
	}
}

// agentProcess returns the process of the node's agent.
func agentProcess(ctx context.Context) int {
	GinkgoHelper()
	id := strings.TrimPrefix(kubectl(ctx, "-n", agentSystem, "get", "pods", "-o",
		"jsonpath={.items[0].status.containerStatuses[0].containerID}"), "containerd://")
	found := regexp.MustCompile(id + `\s+(\d+)`).FindStringSubmatch(output(ctx, "ctr", "--namespace", "k8s.io", "tasks", "list"))
	Expect(found).To(HaveLen(2))
	process, err := strconv.Atoi(found[1])
	Expect(err).NotTo(HaveOccurred())
	return process
}

// metric returns the value of one of the agent's metrics.
func metric(ctx context.Context, name string) float64 {
	GinkgoHelper()
	pod := kubectl(ctx, "-n", agentSystem, "get", "pods", "-o", "jsonpath={.items[0].metadata.name}")
	text := kubectl(ctx, "get", "--raw", "/api/v1/namespaces/"+agentSystem+"/pods/"+pod+":8080/proxy/metrics")
	for line := range strings.Lines(text) {
		if value, is := strings.CutPrefix(line, name+" "); is {
			number, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			Expect(err).NotTo(HaveOccurred())
			return number
		}
	}
	Fail("no metric " + name)
	return 0
}
