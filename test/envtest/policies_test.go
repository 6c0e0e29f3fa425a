package envtest_test

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/shunt-dev/shunt/inject/annotation"
)

// metadata is what a case writes into an object's metadata, or a template's.
type metadata struct{ annotations, labels map[string]string }

func (m metadata) into(object *unstructured.Unstructured, path ...string) {
	GinkgoHelper()
	for field, values := range map[string]map[string]string{"annotations": m.annotations, "labels": m.labels} {
		if len(values) == 0 {
			continue
		}
		at := append(append([]string{}, path...), "metadata", field)
		merged, _, err := unstructured.NestedStringMap(object.Object, at...)
		Expect(err).NotTo(HaveOccurred())
		if merged == nil {
			merged = map[string]string{}
		}
		for key, value := range values {
			merged[key] = value
		}
		Expect(unstructured.SetNestedStringMap(object.Object, merged, at...)).To(Succeed())
	}
}

// workload is an object of a kind that makes pods, with metadata of its own and
// of its pods.
func workload(kind, namespace string, own, pods metadata) *unstructured.Unstructured {
	GinkgoHelper()
	version := map[string]string{"ReplicationController": "v1", "Job": "batch/v1", "CronJob": "batch/v1"}[kind]
	if version == "" {
		version = "apps/v1"
	}
	app := map[string]any{"app": "echo"}
	template := map[string]any{
		"metadata": map[string]any{"labels": app},
		"spec":     map[string]any{"containers": []any{map[string]any{"name": "app", "image": "app"}}},
	}
	spec, path := map[string]any{"template": template}, []string{"spec", "template"}
	switch kind {
	case "ReplicationController":
		spec["selector"] = app
	case "Job", "CronJob":
		template["spec"].(map[string]any)["restartPolicy"] = "Never"
	default:
		spec["selector"] = map[string]any{"matchLabels": app}
	}
	if kind == "CronJob" {
		path = []string{"spec", "jobTemplate", "spec", "template"}
		spec = map[string]any{"schedule": "0 0 * * *", "jobTemplate": map[string]any{"spec": spec}}
	}
	object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": version, "kind": kind, "spec": spec}}
	object.SetGenerateName("echo-")
	object.SetNamespace(namespace)
	own.into(object)
	pods.into(object, path...)
	return object
}

// installPolicies creates the policies, and waits until the API server goes by them.
func installPolicies(ctx context.Context) {
	GinkgoHelper()
	createFrom(ctx, "../../config/policies", func(*unstructured.Unstructured) bool { return true })
	DeferCleanup(func(ctx SpecContext) {
		for _, object := range objectsFrom("../../config/policies") {
			Expect(api.Delete(ctx, object)).To(Succeed())
		}
	})
	ns := newNamespace(ctx, nil)
	Eventually(ctx, func() []string {
		wrong := namespace(map[string]string{annotation.NamespaceInjectionKey: "true"})
		return append(told(ctx, wrong), told(ctx, workload("Deployment", ns, metadata{}, metadata{annotations: mistyped}))...)
	}).WithTimeout(time.Minute).WithPolling(200*time.Millisecond).Should(HaveLen(2), "the policies are not in force")
}

// mistyped is an annotation that nothing reads.
var mistyped = map[string]string{"sidecar.istio.io/interceptMode": "TPROXY"}

// told are the warnings that a client gets which creates an object, in a dry run.
func told(ctx context.Context, object client.Object) []string {
	GinkgoHelper()
	c, texts := warned()
	Expect(c.Create(ctx, object, client.DryRunAll)).To(Succeed())
	return texts.texts
}

var _ = Describe("the policies", Ordered, func() {
	var ns string
	BeforeAll(func(ctx SpecContext) {
		installPolicies(ctx)
		ns = newNamespace(ctx, nil)
	})
	proxied := map[string]string{"sidecar.istio.io/inject": "true"}
	mode := map[string]string{"sidecar.istio.io/interceptionMode": "TPROXY"}

	DescribeTable("warn at a workload of every kind", func(ctx SpecContext, kind, path string) {
		texts := told(ctx, workload(kind, ns, metadata{annotations: mode, labels: proxied}, metadata{annotations: mistyped}))
		Expect(texts).To(ConsistOf(
			HaveSuffix(": sidecar.istio.io/interceptionMode, sidecar.istio.io/inject: for pods, and without effect on the "+kind+
				" itself; set it in "+path),
			HaveSuffix(": without effect in "+path+": "+
				"sidecar.istio.io/interceptMode (unknown key, did you mean sidecar.istio.io/interceptionMode?)"),
		))
		Expect(told(ctx, workload(kind, ns, metadata{labels: proxied}, metadata{annotations: mode, labels: proxied}))).To(BeEmpty())
	},
		Entry(nil, "Deployment", "spec.template.metadata"),
		Entry(nil, "StatefulSet", "spec.template.metadata"),
		Entry(nil, "DaemonSet", "spec.template.metadata"),
		Entry(nil, "ReplicaSet", "spec.template.metadata"),
		Entry(nil, "ReplicationController", "spec.template.metadata"),
		Entry(nil, "Job", "spec.template.metadata"),
		Entry(nil, "CronJob", "spec.jobTemplate.spec.template.metadata"),
	)

	DescribeTable("name what has no effect, and what may be meant", func(ctx SpecContext, own, pods metadata, wanted ...string) {
		texts := told(ctx, workload("Deployment", ns, own, pods))
		Expect(texts).To(HaveLen(len(wanted)), "%q", texts)
		for i, want := range wanted {
			Expect(texts[i]).To(ContainSubstring(want))
		}
	},
		Entry("nothing of ours", metadata{annotations: map[string]string{"a.example/b": "c"}},
			metadata{labels: map[string]string{"istio": "no"}}),
		Entry("keys of Istio that are ignored", metadata{}, metadata{annotations: map[string]string{
			"sidecar.istio.io/discoveryAddress": "a", "ambient.istio.io/redirection": "b", "sidecar.istio.io/status": "c",
		}}),
		Entry("the right place beside the wrong one", metadata{annotations: proxied}, metadata{labels: proxied}),
		Entry("a revision", metadata{labels: map[string]string{"istio.io/rev": "canary"}}, metadata{}, "istio.io/rev: for pods"),
		Entry("the wrong case", metadata{}, metadata{annotations: map[string]string{"sidecar.istio.io/InterceptionMode": "TPROXY"}},
			"sidecar.istio.io/InterceptionMode (unknown key, did you mean sidecar.istio.io/interceptionMode?)"),
		Entry("the wrong prefix", metadata{}, metadata{annotations: map[string]string{"sidecar.istio.io/excludeInboundPorts": "1"}},
			"sidecar.istio.io/excludeInboundPorts (unknown key, did you mean traffic.sidecar.istio.io/excludeInboundPorts?)"),
		Entry("letters that changed places", metadata{}, metadata{annotations: map[string]string{"shunt.dev/dnsCatpure": "all"}},
			"shunt.dev/dnsCatpure (unknown key, did you mean shunt.dev/dnsCapture?)"),
		Entry("an annotation as a label", metadata{}, metadata{labels: mode},
			"sidecar.istio.io/interceptionMode (an annotation, not a label)"),
		Entry("nothing is like it", metadata{}, metadata{annotations: map[string]string{"proxy.istio.io/q": "z"}},
			"without effect in spec.template.metadata: proxy.istio.io/q (unknown key)"),
	)

	It("do not warn where nobody edits, where Shunt does nothing, and of what it did itself", func(ctx SpecContext) {
		wrong := metadata{annotations: mistyped, labels: proxied}
		owned := workload("ReplicaSet", ns, wrong, wrong)
		owned.SetOwnerReferences([]metav1.OwnerReference{
			{APIVersion: "apps/v1", Kind: "Deployment", Name: "echo", UID: "uid-of-echo", Controller: new(true)},
		})
		Expect(told(ctx, owned)).To(BeEmpty())
		Expect(told(ctx, workload("Deployment", "kube-system", wrong, wrong))).To(BeEmpty())
		Expect(told(ctx, workload("Deployment", shuntNamespace(ctx), wrong, wrong))).To(HaveExactElements(ContainSubstring("PodSecurity")))
	})

	It("warn again when something else is changed", func(ctx SpecContext) {
		object := workload("Deployment", ns, metadata{}, metadata{annotations: mistyped})
		Expect(api.Create(ctx, object)).To(Succeed())
		c, texts := warned()
		Expect(unstructured.SetNestedField(object.Object, int64(3), "spec", "replicas")).To(Succeed())
		Expect(c.Update(ctx, object)).To(Succeed())
		Expect(texts.texts).To(HaveLen(1))
	})

	// An API server evaluates a loop in the square of the keys, so objects with many are not looked at.
	DescribeTable("let in the largest objects, and look at 300 keys at most", func(ctx SpecContext, count, length int, wanted ...string) {
		many := map[string]string{}
		for i := range count {
			many[fmt.Sprintf("shunt.dev/x%0*d", length-len("shunt.dev/x"), i)] = ""
		}
		texts := told(ctx, workload("Deployment", ns, metadata{}, metadata{annotations: many}))
		Expect(texts).To(HaveLen(len(wanted)))
		for i, want := range wanted {
			Expect(texts[i]).To(ContainSubstring(want))
		}
	},
		Entry("40 keys", 40, 20, "(unknown key), shunt.dev/x00000"),
		Entry("300 keys", 300, 20, "the pod template has labels or annotations without effect"),
		Entry("301 keys", 301, 20),
		Entry("255 KiB", 4080, 64),
	)

	DescribeTable("warn at a namespace", func(ctx SpecContext, labels, annotations map[string]string, wanted ...string) {
		object := namespace(labels)
		object.Annotations = annotations
		texts := told(ctx, object)
		Expect(texts).To(HaveLen(len(wanted)), "%q", texts)
		for i, want := range wanted {
			Expect(texts[i]).To(HaveSuffix(want))
		}
	},
		Entry("that asks", map[string]string{"istio-injection": "enabled"}, mode),
		Entry("that declines", map[string]string{"istio-injection": "disabled", "istio.io/rev": "canary"}, nil),
		Entry("of somebody else", map[string]string{"topology.istio.io/network": "a", "istio.io/dataplane-mode": "ambient"}, nil),
		Entry("with another value", map[string]string{"istio-injection": "true"}, nil,
			": the label istio-injection: true counts as absent; accepted: enabled, disabled"),
		Entry("with a label as an annotation", nil, map[string]string{"istio-injection": "enabled"},
			": istio-injection: without effect as an annotation; set it as a label"),
		Entry("with a pod's label", proxied, nil,
			": without effect on a namespace: sidecar.istio.io/inject (for pods; the label of a namespace is istio-injection)"),
		Entry("with a mistyped annotation", nil, mistyped, ": without effect on a namespace: "+
			"sidecar.istio.io/interceptMode (unknown key, did you mean sidecar.istio.io/interceptionMode?)"),
	)
})
