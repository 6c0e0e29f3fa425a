package envtest_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
)

// another is the label of the namespaces in which another webhook is asked.
const another = "another-webhook"

var _ = Describe("with another webhook behind it", Ordered, func() {
	BeforeAll(func(ctx SpecContext) {
		url := serveAnother(ctx)
		install := environment.WebhookInstallOptions
		fail, none := admissionregistrationv1.Fail, admissionregistrationv1.SideEffectClassNone
		configuration := &admissionregistrationv1.MutatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: "zz-another"}, // they are asked in the order of their names
			Webhooks: []admissionregistrationv1.MutatingWebhook{{
				Name:         "another.example.com",
				ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: install.LocalServingCAData},
				Rules: []admissionregistrationv1.RuleWithOperations{{
					Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
					Rule: admissionregistrationv1.Rule{
						APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"},
					},
				}},
				NamespaceSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{another: "yes"}},
				FailurePolicy:           &fail,
				SideEffects:             &none,
				AdmissionReviewVersions: []string{"v1"},
			}},
		}
		Expect(api.Create(ctx, configuration)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(api.Delete(ctx, configuration)).To(Succeed()) })
	})

	labels := map[string]string{annotation.NamespaceInjectionKey: "enabled", another: "yes"}
	// The API server takes a moment to heed a new configuration.
	create := func(ctx context.Context, ns string, change string) (*corev1.Pod, []string) {
		GinkgoHelper()
		var pod *corev1.Pod
		var told *warnings
		Eventually(ctx, func(g Gomega) {
			var user client.Client
			user, told = warned()
			pod = newPod(ns, map[string]string{another: change})
			g.Expect(user.Create(ctx, pod)).To(Succeed())
			g.Expect(pod.Annotations).To(HaveKeyWithValue("seen-by", another))
		}).WithTimeout(10 * time.Second).WithPolling(100 * time.Millisecond).Should(Succeed())
		return pod, told.texts
	}

	It("looks again at what the other changed, and injects once", func(ctx SpecContext) {
		ns := newNamespace(ctx, labels)
		create(ctx, ns, "append")
		before := running.count("skipped", inject.ReasonAlreadyInjected)
		pod, told := create(ctx, ns, "append")
		Expect(initContainers(pod)).To(Equal([]string{"shunt-init", "shunt-proxy", "other"}))
		Expect(running.count("skipped", inject.ReasonAlreadyInjected)).To(Equal(before + 1))
		Expect(told).To(BeEmpty())
	})

	It("goes to the front again when the other put something before it, and says so", func(ctx SpecContext) {
		pod, told := create(ctx, newNamespace(ctx, labels), "prepend")
		Expect(initContainers(pod)).To(Equal([]string{"shunt-init", "shunt-proxy", "other"}))
		Expect(told).To(ConsistOf(HaveSuffix("and is put back: init container shunt-init is behind other")))
	})

	It("puts back what the other took out, and says so", func(ctx SpecContext) {
		pod, told := create(ctx, newNamespace(ctx, labels), "remove")
		Expect(initContainers(pod)).To(Equal([]string{"shunt-init", "shunt-proxy"}))
		Expect(told).To(ConsistOf(HaveSuffix("init container shunt-init is missing; init container shunt-proxy is missing")))
	})
})

// serveAnother serves a webhook that does to a pod's init containers what an
// annotation says, once, and returns its URL.
func serveAnother(ctx context.Context) string {
	GinkgoHelper()
	handler, err := admission.StandaloneWebhook(&admission.Webhook{Handler: admission.HandlerFunc(change)}, admission.StandaloneOptions{})
	Expect(err).NotTo(HaveOccurred())
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort(environment.WebhookInstallOptions.LocalServingHost, "0"))
	Expect(err).NotTo(HaveOccurred())
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Second}
	certificates := environment.WebhookInstallOptions.LocalServingCertDir
	go func() {
		_ = server.ServeTLS(listener, filepath.Join(certificates, "tls.crt"), filepath.Join(certificates, "tls.key"))
	}()
	DeferCleanup(server.Close)
	return "https://" + listener.Addr().String() + "/"
}

func change(_ context.Context, request admission.Request) admission.Response {
	pod := &corev1.Pod{}
	if err := json.Unmarshal(request.Object.Raw, pod); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	if pod.Annotations["seen-by"] == another {
		return admission.Allowed("")
	}
	pod.Annotations["seen-by"] = another
	own := corev1.Container{Name: "other", Image: "other"}
	switch pod.Annotations[another] {
	case "append":
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, own)
	case "prepend":
		pod.Spec.InitContainers = append([]corev1.Container{own}, pod.Spec.InitContainers...)
	case "remove":
		pod.Spec.InitContainers = nil
	}
	changed, err := json.Marshal(pod)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	return admission.PatchResponseFromRaw(request.Object.Raw, changed)
}
