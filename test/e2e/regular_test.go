package e2e_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var _ = Describe("as a regular sidecar container, the proxy", func() {
	DescribeTable("gets the first connection of a container, which waits for it", func(ctx SpecContext, mode string) {
		namespace := newNamespace(ctx, true)
		create(ctx, newPod(namespace, "server"))
		server := ready(ctx, namespace, "server")

		pod := newPod(namespace, "regular")
		pod.Annotations[modeKey], pod.Annotations["sidecar.istio.io/nativeSidecar"] = mode, "false"
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever // a container that fails once has failed
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
			Name: "once", Image: application, ImagePullPolicy: corev1.PullIfNotPresent,
			Args: []string{"get", url(server.Status.PodIP, "8080")},
		})
		create(ctx, pod)
		Expect(pod.Spec.Containers[0].Name).To(Equal("shunt-proxy"))
		Eventually(ctx, func(g Gomega) {
			g.Expect(api.Get(ctx, client.ObjectKeyFromObject(pod), pod)).To(Succeed())
			for _, status := range pod.Status.ContainerStatuses {
				if status.Name == "once" {
					g.Expect(status.State.Terminated).NotTo(BeNil(), conditions(pod))
					g.Expect(status.State.Terminated.ExitCode).To(BeZero())
				} else {
					g.Expect(status.Ready).To(BeTrue(), "%s: %s", status.Name, conditions(pod))
				}
			}
			g.Expect(pod.Status.ContainerStatuses).To(HaveLen(3))
		}).WithTimeout(90 * time.Second).WithPolling(200 * time.Millisecond).Should(Succeed())
		Expect(kubectl(ctx, "-n", namespace, "logs", pod.Name, "-c", "once")).To(Equal(proxies[true]))
		Expect(call(ctx, namespace, server.Name, url(pod.Status.PodIP, "8080"))).
			To(Equal(map[string]string{"REDIRECT": proxies[true], "TPROXY": server.Status.PodIP}[mode]))
	},
		Entry("REDIRECT", "REDIRECT"),
		Entry("TPROXY", "TPROXY"),
	)
})
