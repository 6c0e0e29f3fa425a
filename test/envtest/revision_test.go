package envtest_test

import (
	"context"
	"encoding/json"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/webhook"
)

const canaryFolder = "../../config/overlays/revision"

// serveCanary serves the revision of the overlay, as its manifests have it, with a
// configuration.
func serveCanary(ctx context.Context, cfg config.Config) *instance {
	GinkgoHelper()
	objects := objectsFrom(canaryFolder)
	for _, arg := range theOne[appsv1.Deployment](objects, "Deployment").Spec.Template.Spec.Containers[0].Args {
		if revision, is := strings.CutPrefix(arg, "--revision="); is {
			cfg.Revision = revision
		}
	}
	return serveBeside(ctx, cfg, theOne[admissionregistrationv1.MutatingWebhookConfiguration](objects, "MutatingWebhookConfiguration"))
}

// serveBeside serves a configuration of webhooks by an instance of its own,
// until the specs of its container are done.
func serveBeside(
	ctx context.Context, cfg config.Config, configuration *admissionregistrationv1.MutatingWebhookConfiguration,
) *instance {
	GinkgoHelper()
	address := freeAddress()
	_, text, err := net.SplitHostPort(address)
	Expect(err).NotTo(HaveOccurred())
	port, err := strconv.Atoi(text)
	Expect(err).NotTo(HaveOccurred())
	i := newInstance()
	i.run(ctx, cfg, port)

	install := environment.WebhookInstallOptions
	served := url.URL{Scheme: "https", Host: net.JoinHostPort(install.LocalServingHost, text), Path: webhook.Path}
	for at := range configuration.Webhooks {
		configuration.Webhooks[at].ClientConfig = admissionregistrationv1.WebhookClientConfig{
			URL: new(served.String()), CABundle: install.LocalServingCAData,
		}
	}
	Expect(api.Create(ctx, configuration)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) {
		Expect(api.Delete(ctx, configuration)).To(Succeed())
		i.stop()
	})
	return i
}

// injectedBy is the revision that injected a pod, or nothing.
func injectedBy(pod *corev1.Pod) string {
	GinkgoHelper()
	text, present := pod.Annotations[podplan.StatusKey]
	if !present {
		Expect(pod.Spec.InitContainers).To(BeEmpty())
		return ""
	}
	var status podplan.Status
	Expect(json.Unmarshal([]byte(text), &status)).To(Succeed())
	return status.Revision
}

// asked is how many requests a webhook has answered.
func (i *instance) asked() float64 {
	GinkgoHelper()
	families, err := i.registry.Gather()
	Expect(err).NotTo(HaveOccurred())
	var all float64
	for _, family := range families {
		if family.GetName() != "shunt_webhook_requests_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			all += metric.GetCounter().GetValue()
		}
	}
	return all
}

var _ = Describe("two revisions side by side", Ordered, func() {
	var canary *instance

	BeforeAll(func(ctx SpecContext) {
		canary = serveCanary(ctx, config.Default())
		// The API server takes a moment to heed a new configuration.
		ns := newNamespace(ctx, map[string]string{annotation.RevisionKey: "canary"})
		Eventually(ctx, func(g Gomega) {
			pod := newPod(ns, nil)
			g.Expect(api.Create(ctx, pod)).To(Succeed())
			g.Expect(injectedBy(pod)).To(Equal("canary"))
		}).WithTimeout(20 * time.Second).WithPolling(100 * time.Millisecond).Should(Succeed())
	})

	DescribeTable("inject a pod by exactly the right one", func(ctx SpecContext, namespaceLabels, podLabels string, want string) {
		pod := labelled(newPod(newNamespace(ctx, labelsOf(namespaceLabels)), nil), labelsOf(podLabels))
		askedDefault, askedCanary := running.asked(), canary.asked()
		Expect(api.Create(ctx, pod)).To(Succeed())
		Expect(injectedBy(pod)).To(Equal(want))
		Expect(map[string]bool{"default": running.asked() > askedDefault, "canary": canary.asked() > askedCanary}).
			To(Equal(map[string]bool{"default": want == "default", "canary": want == "canary"}), "who was asked")
	},
		Entry("namespace", "istio-injection=enabled", "", "default"),
		Entry("namespace names the default", "istio.io/rev=default", "", "default"),
		Entry("namespace names the other", "istio.io/rev=canary", "", "canary"),
		Entry("namespace names the other, pod asks", "istio.io/rev=canary", "sidecar.istio.io/inject=true", "canary"),
		Entry("namespace names the other, pod declines", "istio.io/rev=canary", "sidecar.istio.io/inject=false", ""),
		Entry("namespace wins over pod", "istio.io/rev=canary", "istio.io/rev=default", "canary"),
		Entry("namespace wins over pod, the other way", "istio.io/rev=default", "istio.io/rev=canary", "default"),
		Entry("istio-injection wins", "istio-injection=enabled,istio.io/rev=canary", "", "default"),
		Entry("istio-injection wins over pod", "istio-injection=enabled", "istio.io/rev=canary", "default"),
		Entry("namespace declines and names a revision", "istio-injection=disabled,istio.io/rev=canary", "", ""),
		Entry("pod asks", "", "sidecar.istio.io/inject=true", "default"),
		Entry("pod names the default", "", "istio.io/rev=default", "default"),
		Entry("pod names the other", "", "istio.io/rev=canary", "canary"),
		Entry("pod asks and names the other", "", "sidecar.istio.io/inject=true,istio.io/rev=canary", "canary"),
		Entry("pod names the other and declines", "", "sidecar.istio.io/inject=false,istio.io/rev=canary", ""),
		Entry("a revision that is not here", "istio.io/rev=asm-1", "sidecar.istio.io/inject=true", ""),
		Entry("nothing said", "", "", ""),
	)
})

// labelsOf reads key=value,key=value.
func labelsOf(text string) map[string]string {
	labels := map[string]string{}
	for pair := range strings.SplitSeq(text, ",") {
		if key, value, is := strings.Cut(pair, "="); is {
			labels[key] = value
		}
	}
	return labels
}

var _ = Describe("the manifests of another revision", func() {
	It("refer to one another, and to nothing of the default one", func() {
		objects, taken := objectsFrom(canaryFolder), map[string]bool{}
		namespace := theOne[corev1.Namespace](objects, "Namespace")
		Expect(namespace.Labels).To(HaveKeyWithValue(annotation.NamespaceInjectionKey, "disabled"))
		for _, object := range objectsFrom("../../config/default") {
			taken[object.GetKind()+" "+object.GetName()] = true
		}
		for _, object := range objects {
			Expect(taken).NotTo(HaveKey(object.GetKind() + " " + object.GetName()))
			Expect(object.GetNamespace()).To(BeElementOf("", namespace.Name))
		}
		deployment, service := theOne[appsv1.Deployment](objects, "Deployment"), theOne[corev1.Service](objects, "Service")
		other := theOne[appsv1.Deployment](objectsFrom("../../config/default"), "Deployment")
		pods := deployment.Spec.Template
		Expect(service.Spec.Selector).NotTo(BeEmpty())
		for key, value := range service.Spec.Selector {
			Expect(pods.Labels).To(HaveKeyWithValue(key, value))
			Expect(other.Spec.Template.Labels).NotTo(HaveKeyWithValue(key, value))
		}
		Expect(pods.Spec.ServiceAccountName).To(Equal(theOne[corev1.ServiceAccount](objects, "ServiceAccount").Name))
		for _, w := range theOne[admissionregistrationv1.MutatingWebhookConfiguration](objects, "MutatingWebhookConfiguration").Webhooks {
			Expect(w.ClientConfig.Service.Name).To(Equal(service.Name))
			Expect(w.ClientConfig.Service.Namespace).To(Equal(namespace.Name))
			Expect(w.NamespaceSelector.MatchExpressions).To(ContainElement(And(
				HaveField("Key", "kubernetes.io/metadata.name"), HaveField("Values", ContainElement(namespace.Name)))))
		}
		for _, object := range objects {
			switch object.GetKind() {
			case "Certificate":
				secret, _, _ := unstructured.NestedString(object.Object, "spec", "secretName")
				Expect(pods.Spec.Volumes[0].Secret.SecretName).To(Equal(secret))
				names, _, _ := unstructured.NestedStringSlice(object.Object, "spec", "dnsNames")
				Expect(names).To(ContainElement(service.Name + "." + service.Namespace + ".svc"))
			case "Issuer":
				Expect(object.GetName()).To(Equal("shunt-selfsigned-canary"))
			case "MutatingWebhookConfiguration":
				Expect(object.GetAnnotations()).To(HaveKeyWithValue("cert-manager.io/inject-ca-from",
					namespace.Name+"/shunt-webhook-canary"))
			}
		}
	})
})
