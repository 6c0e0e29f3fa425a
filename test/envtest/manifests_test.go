package envtest_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/shunt-dev/shunt/inject/annotation"
)

func keyOf(object client.Object) client.ObjectKey { return client.ObjectKeyFromObject(object) }

// shuntNamespace makes the namespace that the manifests name, as they have it,
// and returns its name.
func shuntNamespace(ctx context.Context) string {
	GinkgoHelper()
	return createNamespace(ctx, objectsFrom("../../config/default"))
}

// createNamespace makes the one namespace of these objects, and returns its name.
func createNamespace(ctx context.Context, objects []*unstructured.Unstructured) string {
	GinkgoHelper()
	namespace := theOne[corev1.Namespace](objects, "Namespace")
	if err := api.Create(ctx, namespace); !apierrors.IsAlreadyExists(err) {
		Expect(err).NotTo(HaveOccurred())
	}
	return namespace.Name
}

// kubectlApply has kubectl apply objects on the server's side, and the API
// server check them to the last field and keep none: all but those of kinds
// that this API server does not have.
func kubectlApply(objects []*unstructured.Unstructured) {
	GinkgoHelper()
	user, err := environment.AddUser(envtest.User{Name: "operator", Groups: []string{"system:masters"}}, admin)
	Expect(err).NotTo(HaveOccurred())
	kubectl, err := user.Kubectl()
	Expect(err).NotTo(HaveOccurred())
	file, err := os.CreateTemp(GinkgoT().TempDir(), "*.yaml")
	Expect(err).NotTo(HaveOccurred())
	applied := 0
	for _, object := range objects {
		if group := object.GroupVersionKind().Group; group == "cert-manager.io" || group == "monitoring.coreos.com" {
			continue
		}
		if object.GetKind() == "MutatingWebhookConfiguration" {
			object.SetName(object.GetName() + "-again") // that of the suite's own webhook is there already
		}
		text, err := object.MarshalJSON()
		Expect(err).NotTo(HaveOccurred())
		_, err = fmt.Fprintf(file, "---\n%s\n", text)
		Expect(err).NotTo(HaveOccurred())
		applied++
	}
	Expect(file.Close()).To(Succeed())
	stdout, stderr, err := kubectl.Run("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict",
		"-f", file.Name())
	message, readError := io.ReadAll(stderr)
	Expect(err).NotTo(HaveOccurred(), "%s", message)
	Expect(readError).NotTo(HaveOccurred())
	done, err := io.ReadAll(stdout)
	Expect(err).NotTo(HaveOccurred())
	Expect(strings.Count(string(done), "serverside-applied (server dry run)")).To(Equal(applied), "%s", done)
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
	DescribeTable("are taken by kubectl apply, and run the webhook where only restricted pods may run",
		func(ctx SpecContext, folder string) {
			objects := objectsFrom("../../config/" + folder)
			name := createNamespace(ctx, objects)
			kubectlApply(objects)
			template := theOne[appsv1.Deployment](objects, "Deployment").Spec.Template
			pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
			pod.Name, pod.Namespace = "webhook", name
			Expect(api.Create(ctx, pod, client.DryRunAll)).To(Succeed())
			Expect(*pod.Spec.Priority).To(BeNumerically(">=", 2_000_000_000))
			// The service account gives its token to none that does not say so.
			Expect(theOne[corev1.ServiceAccount](objects, "ServiceAccount").AutomountServiceAccountToken).To(HaveValue(BeFalse()))
			Expect(pod.Spec.AutomountServiceAccountToken).To(HaveValue(BeTrue()))
			// That the level is in force is seen by a pod that it refuses.
			Expect(api.Create(ctx, newPod(name, nil), client.DryRunAll)).
				To(MatchError(ContainSubstring(`violates PodSecurity "restricted`)))
		},
		Entry("by default", "default"),
		Entry("without cert-manager", "self-signed"),
		Entry("where only namespaces ask", "overlays/namespaces-only"),
		Entry("of another revision", "overlays/revision"),
		Entry("for all pods", "overlays/all-pods"),
		Entry("with the Prometheus operator", "overlays/prometheus"),
	)

	It("ask about no pod that is in a namespace that does not ask, where only namespaces ask", func() {
		names := func(folder string) (all []string) {
			configuration := theOne[admissionregistrationv1.MutatingWebhookConfiguration](
				objectsFrom("../../config/"+folder), "MutatingWebhookConfiguration")
			for _, w := range configuration.Webhooks {
				all = append(all, w.Name)
			}
			return all
		}
		Expect(names("overlays/namespaces-only")).To(Equal([]string{"namespace.shunt.dev", "revision.shunt.dev"}))
		Expect(names("default")).To(Equal([]string{"namespace.shunt.dev", "revision.shunt.dev", "pod.shunt.dev"}))
	})

	It("let in what the webhook serves, and nothing else", func() {
		objects := objectsFrom("../../config/default")
		policy, pods := theOne[networkingv1.NetworkPolicy](objects, "NetworkPolicy"), theOne[appsv1.Deployment](objects, "Deployment").Spec
		Expect(policy.Spec.PodSelector).To(Equal(*pods.Selector))
		served, let := map[string]bool{}, map[string]bool{}
		for _, port := range pods.Template.Spec.Containers[0].Ports {
			served[port.Name] = true
		}
		for _, rule := range policy.Spec.Ingress {
			for _, port := range rule.Ports {
				let[port.Port.StrVal] = true
			}
		}
		Expect(let).To(Equal(served))
	})

	It("have samples that are injected, but for the one that declines", func(ctx SpecContext) {
		createFrom(ctx, "../../config/samples", func(*unstructured.Unstructured) bool { return true })
		pods := &corev1.PodList{}
		Expect(api.List(ctx, pods, client.InNamespace("shunt-demo"))).To(Succeed())
		Expect(pods.Items).NotTo(BeEmpty())
		for _, pod := range pods.Items {
			if pod.Labels[annotation.InjectKey] == "false" {
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
