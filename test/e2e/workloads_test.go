package e2e_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var _ = Describe("workloads", func() {
	It("a Job completes, and an init container reaches the network through the proxy", func(ctx SpecContext) {
		namespace := newNamespace(ctx, true)
		create(ctx, newPod(namespace, "server"))
		server := ready(ctx, namespace, "server")
		pod := newPod(namespace, "job")
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		pod.Spec.Containers[0].Args = []string{"exit", "0"}
		pod.Spec.InitContainers = []corev1.Container{{
			Name: "fetch", Image: application, ImagePullPolicy: corev1.PullIfNotPresent,
			Args: []string{"get", url(server.Status.PodIP, "8080")},
		}}
		job := &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "job"},
			Spec: batchv1.JobSpec{
				BackoffLimit: new(int32(0)),
				Template:     corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels}, Spec: pod.Spec},
			},
		}
		create(ctx, job)
		Eventually(ctx, func(g Gomega) {
			g.Expect(api.Get(ctx, client.ObjectKeyFromObject(job), job)).To(Succeed())
			g.Expect(job.Status.Succeeded).To(BeEquivalentTo(1), "%+v", job.Status)
		}).WithTimeout(60 * time.Second).WithPolling(500 * time.Millisecond).Should(Succeed())
		pods := &corev1.PodList{}
		Expect(api.List(ctx, pods, client.InNamespace(namespace), client.MatchingLabels{"e2e": "job"})).To(Succeed())
		Expect(pods.Items).To(HaveLen(1))
		Expect(injected(&pods.Items[0])).To(BeTrue())
		Expect(pods.Items[0].Status.Phase).To(Equal(corev1.PodSucceeded))
		fetched := kubectl(ctx, "-n", namespace, "logs", pods.Items[0].Name, "-c", "fetch")
		Expect(fetched).To(Equal(proxies[true]))
	})

	It("a StatefulSet's pods start in order, also a second time", func(ctx SpecContext) {
		namespace := newNamespace(ctx, true)
		pod := newPod(namespace, "set")
		set := &appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "set"},
			Spec: appsv1.StatefulSetSpec{
				Replicas: new(int32(2)), ServiceName: "set", Selector: metav1.SetAsLabelSelector(pod.Labels),
				Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels}, Spec: pod.Spec},
			},
		}
		service := newService(namespace, "set")
		create(ctx, service, set)
		rolledOut(ctx, namespace, "statefulset/set")
		kubectl(ctx, "-n", namespace, "rollout", "restart", "statefulset/set")
		rolledOut(ctx, namespace, "statefulset/set")
		first, second := ready(ctx, namespace, "set-0"), ready(ctx, namespace, "set-1")
		Expect(injected(first)).To(BeTrue())
		Expect(call(ctx, namespace, first.Name, url(second.Status.PodIP, "8080"))).To(Equal(proxies[true]))
		Expect(call(ctx, namespace, first.Name, url(service.Spec.ClusterIP, "80"))).NotTo(BeEmpty())
	})

	It("a failed container restarts behind the same proxy", func(ctx SpecContext) {
		namespace := newNamespace(ctx, true)
		pod := newPod(namespace, "fails")
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
			Name: "fails", Image: application, ImagePullPolicy: corev1.PullIfNotPresent, Args: []string{"exit", "3"},
		})
		create(ctx, pod)
		Eventually(ctx, func(g Gomega) {
			g.Expect(api.Get(ctx, client.ObjectKeyFromObject(pod), pod)).To(Succeed())
			for _, status := range pod.Status.ContainerStatuses {
				if status.Name == "fails" {
					g.Expect(status.RestartCount).To(BeNumerically(">=", 2))
				}
			}
			g.Expect(pod.Status.ContainerStatuses).NotTo(BeEmpty())
		}).WithTimeout(60 * time.Second).WithPolling(500 * time.Millisecond).Should(Succeed())
		for _, status := range pod.Status.InitContainerStatuses {
			Expect(status.RestartCount).To(BeZero(), "%s was started again", status.Name)
		}
		Expect(call(ctx, namespace, "fails", url("127.0.0.1", "8080"))).NotTo(BeEmpty())
	})
})
