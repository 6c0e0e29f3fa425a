package e2e_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var _ = Describe("the webhook loses", func() {
	It("its Secret: cert-manager makes another, and the webhook serves that", func(ctx SpecContext) {
		before, err := certificate(ctx)
		Expect(err).NotTo(HaveOccurred())
		underStreams(ctx, func(*stream) {
			kubectl(ctx, "-n", system, "delete", "secret", "shunt-webhook-cert")
			Eventually(ctx, certificate).WithTimeout(60 * time.Second).WithPolling(200 * time.Millisecond).
				ShouldNot(Or(BeEmpty(), Equal(before)))
			Eventually(ctx, expiries).WithTimeout(150*time.Second).WithPolling(time.Second).
				Should(And(HaveLen(2), HaveEach(Equal(expiry(ctx)))), "not every replica serves the new certificate")
		})
	})

	It("both of its pods at once", func(ctx SpecContext) {
		underStreams(ctx, func(*stream) {
			kubectl(ctx, "-n", system, "delete", "pods", "--all", "--force", "--grace-period=0")
			rolledOut(ctx, system, "deployment/shunt-webhook")
		})
	})

	It("all of its pods: the cluster still starts, and a Deployment reports why it has no pod until the webhook is back",
		func(ctx SpecContext) {
			namespace := newNamespace(ctx, true)
			kubectl(ctx, "-n", system, "scale", "deployment/shunt-webhook", "--replicas=0")
			DeferCleanup(func(ctx SpecContext) {
				kubectl(ctx, "-n", system, "scale", "deployment/shunt-webhook", "--replicas=2")
				rolledOut(ctx, system, "deployment/shunt-webhook")
				answers(ctx)
			})
			Eventually(ctx, func() error {
				return api.Create(ctx, unscheduled(namespace, "denied"), client.DryRunAll)
			}).WithTimeout(60 * time.Second).Should(MatchError(ContainSubstring("failed calling webhook")))
			for _, name := range []string{"kube-system", newNamespace(ctx, false)} {
				startsIn(ctx, name)
			}

			asks := newDeployment(namespace, "asks")
			create(ctx, asks)
			Eventually(ctx, func(g Gomega) {
				g.Expect(api.Get(ctx, client.ObjectKeyFromObject(asks), asks)).To(Succeed())
				g.Expect(asks.Status.Conditions).To(ContainElement(And(
					HaveField("Type", appsv1.DeploymentReplicaFailure), HaveField("Message", ContainSubstring("namespace.shunt.dev")),
				)))
			}).WithTimeout(60 * time.Second).WithPolling(200 * time.Millisecond).Should(Succeed())
			kubectl(ctx, "-n", system, "scale", "deployment/shunt-webhook", "--replicas=2")
			Expect(injected(podOf(ctx, namespace, "asks"))).To(BeTrue())
		})
})

var _ = Describe("on the node, which loses its power,", Label(node), func() {
	It("everything comes back, and no pod is created without the proxy", func(ctx SpecContext) {
		namespace := newNamespace(ctx, true)
		create(ctx, newDeployment(namespace, "asks"))
		before := podOf(ctx, namespace, "asks")
		asked := newStream(ctx, newNamespace(ctx, true), true)
		asked.goesOn(ctx, 30*time.Second)
		for id := range strings.FieldsSeq(output(ctx, "ctr", "--namespace", "k8s.io", "tasks", "list", "--quiet")) {
			// A process that has just ended cannot be killed, and need not be.
			_ = exec.CommandContext(ctx, "ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", id).Run()
		}
		for _, part := range []string{
			"kubelet", "kube-proxy", "kube-scheduler", "kube-controller-manager", "containerd", "etcd", "kube-apiserver",
		} {
			pid, err := os.ReadFile("/run/node/" + part + ".pid")
			Expect(err).NotTo(HaveOccurred())
			output(ctx, "kill", "-KILL", strings.TrimSpace(string(pid)))
		}
		answersAgain := func() error { return api.Create(ctx, unscheduled(asked.namespace, "again"), client.DryRunAll) }
		Eventually(ctx, answersAgain).WithTimeout(180 * time.Second).WithPolling(500 * time.Millisecond).
			MustPassRepeatedly(5).Should(Succeed())
		asked.goesOn(ctx, 60*time.Second)
		asked.stop()
		asked.kept(ctx, true)
		AddReportEntry("asked for the proxy: " + asked.soFar().String())
		Expect(asked.soFar().wrong).To(BeZero(), "pods were made without the proxy")
		after := podOf(ctx, namespace, "asks")
		Expect(after.UID).To(Equal(before.UID), "another pod was made")
		Expect(call(ctx, namespace, after.Name, url(after.Status.PodIP, "8080"))).NotTo(BeEmpty())
	})
})

// startsIn runs a pod in a namespace that does not ask for the proxy.
func startsIn(ctx context.Context, namespace string) {
	GinkgoHelper()
	pod := newPod(namespace, "e2e-without-shunt")
	create(ctx, pod)
	DeferCleanup(func(ctx SpecContext) { Expect(client.IgnoreNotFound(api.Delete(ctx, pod))).To(Succeed()) })
	Expect(injected(ready(ctx, namespace, pod.Name))).To(BeFalse())
}
