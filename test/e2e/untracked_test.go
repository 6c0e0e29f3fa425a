//go:build linux

package e2e_test

import (
	"context"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
)

// markSysctls are what TPROXY without conntrack rests on.
var markSysctls = []string{
	"/proc/sys/net/ipv4/tcp_fwmark_accept", "/proc/sys/net/ipv4/fwmark_reflect", "/proc/sys/net/ipv6/fwmark_reflect",
}

// The agent has to set sysctls of pods from its own container, whose /proc/sys is read-only.
var _ = Describe("TPROXY without conntrack, set up by the agent on the node", Ordered, Label(agent, short), func() {
	BeforeAll(func(ctx SpecContext) {
		withArguments(ctx, "--resync=1s")
	}, NodeTimeout(2*time.Minute))
	AfterAll(func(ctx SpecContext) {
		kubectl(ctx, "delete", "--wait", "--timeout=120s", "-k", agentManifest)
	}, NodeTimeout(2*time.Minute))

	It("tracks nothing, and changes no sysctl of the node", func(ctx SpecContext) {
		before := output(ctx, "cat", markSysctls...)
		namespace := newNodeNamespace(ctx, "privileged")
		pods := map[string]*corev1.Pod{}
		for _, name := range []string{"server", "client"} {
			pod := newPod(namespace, name)
			pod.Annotations[modeKey] = "TPROXY"
			create(ctx, pod)
			pods[name] = pod
		}
		for name := range pods {
			pods[name] = ready(ctx, namespace, name)
			Expect(pods[name].Spec.InitContainers[0].Args).To(ContainElement("--no-conntrack=true"))
			expectIntercepted(ctx, namespace, name)
		}
		for i, to := range pods["server"].Status.PodIPs {
			own := pods["client"].Status.PodIPs[i].IP
			Expect(call(ctx, namespace, "client", url(to.IP, "8080"))).To(Equal(own))
			Expect(call(ctx, namespace, "client", url(own, "8080"))).To(Equal(own))
		}
		for name, pod := range pods {
			Expect(strings.Fields(inNetworkOf(ctx, pod, "cat", markSysctls...))).To(HaveEach("1"), name)
			Expect(strings.TrimSpace(inNetworkOf(ctx, pod, "cat", "/proc/sys/net/netfilter/nf_conntrack_count"))).To(Equal("0"), name)
		}
		Expect(output(ctx, "cat", markSysctls...)).To(Equal(before), "the node's own sysctls")

		By("comparing finds nothing, but a sysctl that somebody changes, which is put back")
		Eventually(ctx, func() float64 { return metric(ctx, `shunt_node_comparisons_total{result="same"}`) }).
			WithTimeout(60 * time.Second).WithPolling(time.Second).Should(BeNumerically(">=", 4))
		Expect(metric(ctx, `shunt_node_comparisons_total{result="changed"}`)).To(BeZero())
		inNetworkOf(ctx, pods["server"], "sysctl", "-qw", "net.ipv4.tcp_fwmark_accept=0")
		Eventually(ctx, func() string { return inNetworkOf(ctx, pods["server"], "cat", markSysctls[0]) }).
			WithTimeout(60 * time.Second).WithPolling(time.Second).Should(Equal("1\n"))
		Expect(metric(ctx, `shunt_node_drift_total{reason="settings"}`)).To(BeEquivalentTo(1))
	})
})

// inNetworkOf runs a command of the node in a pod's network namespace.
func inNetworkOf(ctx context.Context, pod *corev1.Pod, name string, args ...string) string {
	GinkgoHelper()
	return output(ctx, "nsenter", append([]string{"--net=" + networkOf(ctx, pod), name}, args...)...)
}
