package e2e_test

import (
	"context"
	"os/exec"
	"regexp"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// These specs look at the node itself. The suite leaves them out unless it made the node.
var _ = Describe("on the node", Label(node), func() {
	It("injected pods change nothing of its own, and a pod of its network is not intercepted", func(ctx SpecContext) {
		namespace := newNamespace(ctx, true)
		before := listings(ctx)
		for name, listing := range before {
			Expect(listing).NotTo(ContainSubstring("SHUNT"), "%s of the node", name)
		}
		tproxy, host := newPod(namespace, "tproxy"), newPod(namespace, "host")
		tproxy.Annotations[modeKey] = "TPROXY"
		host.Spec.HostNetwork = true
		create(ctx, newPod(namespace, "redirect"), tproxy, host)
		Expect(injected(ready(ctx, namespace, "redirect"))).To(BeTrue())
		Expect(injected(ready(ctx, namespace, "tproxy"))).To(BeTrue())
		Expect(injected(ready(ctx, namespace, "host"))).To(BeFalse())
		Expect(call(ctx, namespace, "host", url(ready(ctx, namespace, "tproxy").Status.PodIP, "8080"))).NotTo(BeEmpty())
		Expect(listings(ctx)).To(Equal(before), "with the pods")
		kubectl(ctx, "-n", namespace, "delete", "pods", "--all", "--wait")
		Expect(listings(ctx)).To(Equal(before), "after the pods")
	})

	It("a pod whose sandbox is killed comes back with its rules, and no duplicates", func(ctx SpecContext) {
		namespace := newNamespace(ctx, true)
		create(ctx, newPod(namespace, "killed"), newPod(namespace, "client"))
		ready(ctx, namespace, "client")
		pod := ready(ctx, namespace, "killed")
		rules := rulesOf(ctx, pod)
		Expect(rules).To(ContainSubstring("SHUNT"))

		output(ctx, "ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", sandbox(ctx, pod))
		again := &corev1.Pod{}
		Eventually(ctx, func(g Gomega) {
			g.Expect(api.Get(ctx, client.ObjectKeyFromObject(pod), again)).To(Succeed())
			g.Expect(again.Status.InitContainerStatuses).NotTo(BeEmpty())
			g.Expect(again.Status.InitContainerStatuses[0].ContainerID).NotTo(Equal(pod.Status.InitContainerStatuses[0].ContainerID))
			g.Expect(isReady(again)).To(BeTrue(), conditions(again))
		}).WithTimeout(120 * time.Second).WithPolling(500 * time.Millisecond).Should(Succeed())
		Expect(rulesOf(ctx, again)).To(Equal(rules))
		Expect(again.UID).To(Equal(pod.UID))
		Expect(call(ctx, namespace, "client", url(again.Status.PodIP, "8080"))).To(Equal(proxies[true]))
	})
})

// output runs a program of the node.
func output(ctx context.Context, name string, args ...string) string {
	GinkgoHelper()
	out, err := exec.CommandContext(ctx, name, args...).Output()
	Expect(err).NotTo(HaveOccurred(), "%s %s", name, strings.Join(args, " "))
	return string(out)
}

// changing matches what differs between two listings of the same rules: counters, and the times in
// comments.
var changing = regexp.MustCompile(`\[\d+:\d+\]|(?m)^#.*$`)

// listings returns the node's own rules and routes, without those of pods' interfaces, which come
// and go with every pod.
func listings(ctx context.Context) map[string]string {
	GinkgoHelper()
	all := map[string]string{}
	for _, command := range []string{
		"iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save",
		"ip -4 rule", "ip -6 rule", "ip -4 route show table all", "ip -6 route show table all",
	} {
		words := strings.Fields(command)
		lines := []string{}
		for line := range strings.Lines(changing.ReplaceAllString(output(ctx, words[0], words[1:]...), "")) {
			if !strings.Contains(line, " dev veth") {
				lines = append(lines, line)
			}
		}
		all[command] = strings.Join(lines, "")
	}
	return all
}

// sandbox returns the container that holds a pod's namespaces.
func sandbox(ctx context.Context, pod *corev1.Pod) string {
	GinkgoHelper()
	found := strings.Fields(output(ctx, "ctr", "--namespace", "k8s.io", "containers", "list", "--quiet",
		`labels."io.cri-containerd.kind"==sandbox,labels."io.kubernetes.pod.uid"==`+string(pod.UID)))
	running := []string{}
	tasks := output(ctx, "ctr", "--namespace", "k8s.io", "tasks", "list")
	for _, id := range found {
		if regexp.MustCompile(id + `\s+\d+\s+RUNNING`).MatchString(tasks) {
			running = append(running, id)
		}
	}
	Expect(running).To(HaveLen(1))
	return running[0]
}

// networkOf returns the path of a pod's network namespace.
func networkOf(ctx context.Context, pod *corev1.Pod) string {
	GinkgoHelper()
	task := regexp.MustCompile(sandbox(ctx, pod) + `\s+(\d+)`).
		FindStringSubmatch(output(ctx, "ctr", "--namespace", "k8s.io", "tasks", "list"))
	Expect(task).To(HaveLen(2))
	return "/proc/" + task[1] + "/ns/net"
}

// rulesOf returns the rules in a pod's own network namespace.
func rulesOf(ctx context.Context, pod *corev1.Pod) string {
	GinkgoHelper()
	return changing.ReplaceAllString(output(ctx, "nsenter", "--net="+networkOf(ctx, pod), "iptables-nft-save"), "")
}
