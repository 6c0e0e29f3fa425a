package e2e_test

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// kinds are all kinds of probes, each with the port where app answers, and with another one.
var kinds = map[string]func(healthy bool) corev1.ProbeHandler{
	"http": func(healthy bool) corev1.ProbeHandler {
		return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: port(healthy, 8080)}}
	},
	"https": func(healthy bool) corev1.ProbeHandler {
		return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: port(healthy, 8443), Scheme: corev1.URISchemeHTTPS}}
	},
	"tcp": func(healthy bool) corev1.ProbeHandler {
		return corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: port(healthy, 9000)}}
	},
	"grpc": func(healthy bool) corev1.ProbeHandler {
		at := port(healthy, 9090)
		return corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: at.IntVal}}
	},
	"exec": func(healthy bool) corev1.ProbeHandler {
		file := map[bool]string{true: "/app", false: "/none"}[healthy]
		return corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/app", "stat", file}}}
	},
}

// port returns the port where app answers, or one where nothing does.
func port(healthy bool, number int32) intstr.IntOrString {
	if !healthy {
		number = 9999
	}
	return intstr.FromInt32(number)
}

var _ = Describe("kubelet's probes", Label(short), func() {
	DescribeTable("find what is there, and only that", func(ctx SpecContext, mode string) {
		namespace := newNamespace(ctx, true)
		for kind, handler := range kinds {
			create(ctx, probed(namespace, "up-"+kind, mode, handler(true)), probed(namespace, "down-"+kind, mode, handler(false)))
		}
		for kind := range kinds {
			Expect(injected(ready(ctx, namespace, "up-"+kind))).To(BeTrue())
		}
		By("a few periods later")
		Consistently(ctx, func(g Gomega) {
			for kind := range kinds {
				up, down := app(ctx, g, namespace, "up-"+kind), app(ctx, g, namespace, "down-"+kind)
				g.Expect(up.Ready).To(BeTrue(), "%s is not ready although its server answers", kind)
				g.Expect(up.RestartCount).To(BeZero(), "%s was restarted although its server answers", kind)
				g.Expect(down.Ready).To(BeFalse(), "%s is ready although nothing listens", kind)
			}
		}).WithTimeout(4 * time.Second).WithPolling(time.Second).Should(Succeed())
		By("liveness: what does not answer is restarted")
		for kind := range kinds {
			Eventually(ctx, func(g Gomega) {
				g.Expect(app(ctx, g, namespace, "down-"+kind).RestartCount).NotTo(BeZero(), "%s is not restarted", kind)
			}).WithTimeout(60 * time.Second).WithPolling(time.Second).Should(Succeed())
		}
	},
		Entry("by REDIRECT", "REDIRECT"),
		Entry("by TPROXY", "TPROXY"),
	)

	// postStart cannot be tested: kubelet runs it at once, before the application listens or after.
	It("and its preStop hook reaches the application", func(ctx SpecContext) {
		namespace := newNamespace(ctx, true)
		pod := newPod(namespace, "hooks")
		pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{
			HTTPGet: &corev1.HTTPGetAction{Path: "/pre-stop", Port: intstr.FromInt32(8080)},
		}}
		pod.Spec.TerminationGracePeriodSeconds = new(int64(10))
		create(ctx, pod)
		ready(ctx, namespace, "hooks")
		logs := make(chan string)
		go func() { // to its end: output after the deletion can be read in no other way
			out, err := tryKubectl(ctx, "-n", namespace, "logs", "--follow", "hooks", "-c", "app")
			logs <- fmt.Sprint(out, err)
		}()
		Expect(api.Delete(ctx, pod)).To(Succeed())
		Eventually(ctx, logs).WithTimeout(30 * time.Second).
			Should(Receive(ContainSubstring("/pre-stop")))
	})
})

// probed returns a pod with one probe, as its readiness and its liveness.
func probed(namespace, name, mode string, handler corev1.ProbeHandler) *corev1.Pod {
	pod := newPod(namespace, name)
	pod.Annotations[modeKey] = mode
	pod.Spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: handler, PeriodSeconds: 1, TimeoutSeconds: 5}
	pod.Spec.Containers[0].LivenessProbe = &corev1.Probe{
		ProbeHandler: handler, PeriodSeconds: 3, TimeoutSeconds: 5, FailureThreshold: 3,
	}
	return pod
}

// app returns the state of a pod's application.
func app(ctx context.Context, g Gomega, namespace, pod string) corev1.ContainerStatus {
	found := &corev1.Pod{}
	g.Expect(api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: pod}, found)).To(Succeed())
	for _, status := range found.Status.ContainerStatuses {
		if status.Name == "app" {
			return status
		}
	}
	g.Expect(fmt.Errorf("the pod %s has no application yet", pod)).NotTo(HaveOccurred())
	return corev1.ContainerStatus{}
}
