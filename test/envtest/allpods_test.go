package envtest_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shunt-dev/shunt/inject/config"
)

// The webhook of config/overlays/all-pods is served beside those of the suite,
// which are the others of that overlay; so a pod that meets two is asked about
// twice, and seen.
var _ = Describe("pods of which nobody says anything", Ordered, func() {
	var beside *instance

	BeforeAll(func(ctx SpecContext) {
		configuration := theOne[admissionregistrationv1.MutatingWebhookConfiguration](
			objectsFrom("../../config/overlays/all-pods"), "MutatingWebhookConfiguration")
		last := configuration.Webhooks[len(configuration.Webhooks)-1]
		Expect(last.Name).To(Equal("unasked.shunt.dev"))
		Expect(configuration.Webhooks).To(HaveLen(4))
		configuration.Name, configuration.Webhooks = "shunt-all-pods", []admissionregistrationv1.MutatingWebhook{last}
		cfg := config.Default()
		cfg.AlwaysInjectSelector = []metav1.LabelSelector{{MatchLabels: map[string]string{"mesh": "always"}}}
		cfg.NeverInjectSelector = []metav1.LabelSelector{{MatchLabels: map[string]string{"build": "helper"}}}
		beside = serveBeside(ctx, cfg, configuration)
		// The API server takes a moment to heed a new configuration.
		ns := newNamespace(ctx, nil)
		Eventually(ctx, func(g Gomega) {
			pod := labelled(newPod(ns, nil), map[string]string{"mesh": "always"})
			g.Expect(api.Create(ctx, pod)).To(Succeed())
			g.Expect(injectedBy(pod)).NotTo(BeEmpty())
		}).WithTimeout(20 * time.Second).WithPolling(100 * time.Millisecond).Should(Succeed())
	})

	DescribeTable("are asked about, and no others", func(
		ctx SpecContext, namespaceLabels, podLabels, podAnnotations, want string, asked bool,
	) {
		pod := labelled(newPod(newNamespace(ctx, labelsOf(namespaceLabels)), labelsOf(podAnnotations)), labelsOf(podLabels))
		before := beside.asked()
		Expect(api.Create(ctx, pod)).To(Succeed())
		Expect(injectedBy(pod)).To(Equal(want))
		Expect(beside.asked() > before).To(Equal(asked), "asked by the webhook")
	},
		Entry("selected", "", "mesh=always", "", "default", true),
		Entry("selected and deselected", "", "mesh=always,build=helper", "", "", true),
		Entry("not selected", "", "mesh=other", "", "", true),
		Entry("selected, in a namespace with a word that is none", "istio-injection=on", "mesh=always", "", "default", true),
		Entry("selected and declined", "", "mesh=always,sidecar.istio.io/inject=false", "", "", false),
		Entry("selected and declined by annotation", "", "mesh=always", "sidecar.istio.io/inject=false", "", false),
		Entry("selected and asking", "", "mesh=always,sidecar.istio.io/inject=true", "", "default", false),
		Entry("selected and asking by annotation", "", "mesh=always", "sidecar.istio.io/inject=true", "default", false),
		Entry("selected, of the default revision", "", "mesh=always,istio.io/rev=default", "", "default", false),
		Entry("selected, of another revision", "", "mesh=always,istio.io/rev=canary", "", "", false),
		Entry("selected, in a namespace that asks", "istio-injection=enabled", "mesh=always", "", "default", false),
		Entry("selected, in a namespace that declines", "istio-injection=disabled", "mesh=always", "", "", false),
		Entry("selected, in a namespace of another revision", "istio.io/rev=canary", "mesh=always", "", "", false),
	)
})
