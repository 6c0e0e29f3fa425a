package envtest_test

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/shunt-dev/shunt/inject"
)

func keyOf(object client.Object) client.ObjectKey { return client.ObjectKeyFromObject(object) }

// shuntNamespace makes the namespace that the manifests name, as they have it,
// and returns its name.
func shuntNamespace(ctx context.Context) string {
	GinkgoHelper()
	for _, object := range objectsFrom("../../config/default") {
		if object.GetKind() == "Namespace" {
			if err := api.Create(ctx, object); !apierrors.IsAlreadyExists(err) {
				Expect(err).NotTo(HaveOccurred())
			}
			return object.GetName()
		}
	}
	Fail("config/default has no Namespace")
	return ""
}

// restricted makes a pod one that the strictest pod security level admits.
func restricted(pod *corev1.Pod) *corev1.Pod {
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{
		RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	for i := range pod.Spec.Containers {
		pod.Spec.Containers[i].SecurityContext = &corev1.SecurityContext{
			AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		}
	}
	return pod
}

var _ = Describe("the manifests that ship", func() {
	It("are accepted, field by field", func(ctx SpecContext) {
		shuntNamespace(ctx)
		seen := map[string]int{}
		createFrom(ctx, "../../config/default", func(o *unstructured.Unstructured) bool {
			seen[o.GetKind()]++
			// What is there already is made under another name.
			o.SetName(o.GetName() + "-again")
			return o.GroupVersionKind().Group != "cert-manager.io" // whose kinds this API server does not have
		}, client.DryRunAll)
		Expect(seen).To(Equal(map[string]int{
			"Namespace": 1, "ServiceAccount": 1, "ClusterRole": 1, "ClusterRoleBinding": 1, "Service": 1, "Deployment": 1,
			"PodDisruptionBudget": 1, "ConfigMap": 1, "Issuer": 1, "Certificate": 1, "MutatingWebhookConfiguration": 1,
		}))
	})

	It("run the webhook where only restricted pods may run", func(ctx SpecContext) {
		name := shuntNamespace(ctx)
		for _, object := range objectsFrom("../../config/default") {
			if object.GetKind() != "Deployment" {
				continue
			}
			deployment := &appsv1.Deployment{}
			Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, deployment)).To(Succeed())
			template := deployment.Spec.Template
			pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
			pod.Name, pod.Namespace = "webhook", name
			Expect(api.Create(ctx, pod, client.DryRunAll)).To(Succeed())
			// That the level is in force is seen by a pod that it refuses.
			Expect(api.Create(ctx, newPod(name, nil), client.DryRunAll)).
				To(MatchError(ContainSubstring(`violates PodSecurity "restricted`)))
		}
	})

	It("have samples that are injected, but for the one that declines", func(ctx SpecContext) {
		createFrom(ctx, "../../config/samples", func(*unstructured.Unstructured) bool { return true })
		pods := &corev1.PodList{}
		Expect(api.List(ctx, pods, client.InNamespace("shunt-demo"))).To(Succeed())
		Expect(pods.Items).NotTo(BeEmpty())
		for _, pod := range pods.Items {
			if pod.Labels[inject.InjectKey] == "false" {
				Expect(initContainers(&pod)).To(BeEmpty(), pod.Name)
			} else {
				Expect(initContainers(&pod)).To(Equal([]string{"shunt-init", "shunt-proxy"}), pod.Name)
			}
		}
		// There is no controller here; the pods of its template are made by hand.
		deployments := &appsv1.DeploymentList{}
		Expect(api.List(ctx, deployments, client.InNamespace("shunt-demo"))).To(Succeed())
		for _, d := range deployments.Items {
			pod := &corev1.Pod{ObjectMeta: d.Spec.Template.ObjectMeta, Spec: d.Spec.Template.Spec}
			pod.GenerateName, pod.Namespace = d.Name+"-", d.Namespace
			Expect(api.Create(ctx, pod)).To(Succeed())
			Expect(initContainers(pod)[:2]).To(Equal([]string{"shunt-init", "shunt-proxy"}))
		}
	})
})
