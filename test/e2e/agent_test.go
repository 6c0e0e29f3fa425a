package e2e_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
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
		kubectl(ctx, "apply", "-k", agentManifest)
		rolledOut(ctx, agentSystem, "daemonset/shunt-node")
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

	It("intercepts TPROXY pods, and leaves those of interceptFrom: pod alone", Label(short), func(ctx SpecContext) {
		namespace, other := newNodeNamespace(ctx, "privileged"), newNamespace(ctx, true)
		tproxy := newPod(namespace, "tproxy")
		tproxy.Annotations[modeKey] = "TPROXY"
		create(ctx, tproxy, newPod(namespace, "client"), newPod(other, "own"))
		client := ready(ctx, namespace, "client")
		Expect(call(ctx, namespace, "client", url(ready(ctx, namespace, "tproxy").Status.PodIP, "8080"))).To(Equal(client.Status.PodIP))
		own := ready(ctx, other, "own")
		Expect(own.Annotations).NotTo(HaveKey(rulesKey))
		Expect(own.Spec.InitContainers[0].SecurityContext.Capabilities.Add).To(ContainElement(corev1.Capability("NET_ADMIN")))
		Expect(call(ctx, namespace, "client", url(own.Status.PodIP, "8080"))).To(Equal(proxies[true]))
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
			Eventually(ctx, func() string {
				return kubectl(ctx, "-n", exempt, "get", "events", "-o", "jsonpath={.items[*].reason}",
					"--field-selector", "involvedObject.name="+name)
			}).WithTimeout(60 * time.Second).WithPolling(time.Second).Should(ContainSubstring("InterceptionRefused"))
		}
		Expect(listings(ctx)).To(Equal(before), "the node's own rules")
	})

	It("is stopped while pods start: none runs open, and all come up when it goes on", func(ctx SpecContext) {
		underDisturbance(ctx, func(release func()) {
			process := agentProcess(ctx)
			Expect(syscall.Kill(process, syscall.SIGSTOP)).To(Succeed())
			defer func() { _ = syscall.Kill(process, syscall.SIGCONT) }()
			release()
			time.Sleep(10 * time.Second) // how long it is stuck, which is more than the runtime waits
		})
	})

	It("is killed while pods start: none runs open, and all come up", func(ctx SpecContext) {
		underDisturbance(ctx, func(release func()) {
			Expect(syscall.Kill(agentProcess(ctx), syscall.SIGKILL)).To(Succeed())
			release()
		})
	})

	It("is rolled out while pods start: none runs open, and all come up", func(ctx SpecContext) {
		underDisturbance(ctx, func(release func()) {
			kubectl(ctx, "-n", agentSystem, "rollout", "restart", "daemonset/shunt-node")
			release()
			rolledOut(ctx, agentSystem, "daemonset/shunt-node")
		})
	})

	It("loses containerd while pods start: none runs open, and all come up", func(ctx SpecContext) {
		underDisturbance(ctx, func(release func()) {
			release()
			text, err := os.ReadFile("/run/node/containerd.pid")
			Expect(err).NotTo(HaveOccurred())
			process, err := strconv.Atoi(strings.TrimSpace(string(text)))
			Expect(err).NotTo(HaveOccurred())
			Expect(syscall.Kill(process, syscall.SIGKILL)).To(Succeed())
		})
	})

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

// disturbed is how many pods start under a disturbance.
const disturbed = 40

// underDisturbance creates pods while something happens to the agent, and checks that each of them
// started its application only behind a gate that had proved its rules.
func underDisturbance(ctx context.Context, disturb func(release func())) {
	GinkgoHelper()
	namespace := newNodeNamespace(ctx, "restricted")
	create(ctx, newRestrictedPod(namespace, "client"))
	ready(ctx, namespace, "client")
	start := time.Now()
	disturb(func() {
		for i := range disturbed {
			pod := newRestrictedPod(namespace, fmt.Sprintf("pod-%d", i))
			pod.Annotations["sidecar.istio.io/proxyCPU"] = "1m" // a small node has room for all
			pod.Annotations["sidecar.istio.io/proxyMemory"] = "16Mi"
			if i%2 == 0 { // as of a Job: kubelet does not start its containers again
				pod.Spec.RestartPolicy = corev1.RestartPolicyNever
			}
			Eventually(ctx, func() error { return client.IgnoreAlreadyExists(api.Create(ctx, pod)) }).
				WithTimeout(30 * time.Second).WithPolling(200 * time.Millisecond).Should(Succeed())
		}
	})
	late := 0
	for i := range disturbed {
		name := fmt.Sprintf("pod-%d", i)
		var pod *corev1.Pod
		Eventually(ctx, func(g Gomega) {
			pod = &corev1.Pod{}
			g.Expect(api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, pod)).To(Succeed())
			g.Expect(isReady(pod)).To(BeTrue(), "%s: %s", name, conditions(pod))
		}).WithTimeout(240 * time.Second).WithPolling(500 * time.Millisecond).Should(Succeed())
		expectIntercepted(ctx, namespace, name)
		Eventually(ctx, func() (string, error) {
			return tryKubectl(ctx, "-n", namespace, "exec", "client", "-c", "app", "--", "/app", "get", url(pod.Status.PodIP, "8080"))
		}).WithTimeout(30*time.Second).WithPolling(500*time.Millisecond).Should(HavePrefix(proxies[true]), name)
		if strings.Contains(gateLog(ctx, namespace, name), "late: ") {
			late++
		}
	}
	AddReportEntry(fmt.Sprintf("%d pods, all intercepted after %s; %d of them were set up late",
		disturbed, time.Since(start).Round(time.Second), late))
}

// expectIntercepted checks that a pod's application was started after its gate had proved the rules.
func expectIntercepted(ctx context.Context, namespace, name string) {
	GinkgoHelper()
	pod := &corev1.Pod{}
	Expect(api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, pod)).To(Succeed())
	gate, app := pod.Status.InitContainerStatuses[0], pod.Status.ContainerStatuses[0]
	Expect(gate.Name).To(Equal("shunt-init"))
	Expect(gate.State.Terminated).NotTo(BeNil(), name)
	Expect(gate.State.Terminated.ExitCode).To(BeZero(), name)
	Expect(app.State.Running).NotTo(BeNil(), name)
	Expect(app.State.Running.StartedAt.Time).NotTo(BeTemporally("<", gate.State.Terminated.FinishedAt.Time), name)
	Expect(app.RestartCount).To(BeZero(), name)
	Expect(gateLog(ctx, namespace, name)).To(MatchRegexp("set up by the node's agent.* verified"))
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
