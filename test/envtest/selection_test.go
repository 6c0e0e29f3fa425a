package envtest_test

import (
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
)

// Which pods the manifest that ships has the API server ask about. Most wishes are
// cases of the corpus, for each of which checkCase knows whether it is asked about.
var _ = Describe("selection", func() {
	injected := []string{"shunt-init", "shunt-proxy"}

	DescribeTable("by namespace and pod", func(ctx SpecContext, namespaceLabel, podLabel, podAnnotation string, want []string) {
		labels := map[string]string{}
		if namespaceLabel != "" {
			labels[annotation.NamespaceInjectionKey] = namespaceLabel
		}
		pod := newPod(newNamespace(ctx, labels), nil)
		if podLabel != "" {
			pod.Labels = map[string]string{annotation.InjectKey: podLabel}
		}
		if podAnnotation != "" {
			pod.Annotations = map[string]string{annotation.InjectKey: podAnnotation}
		}
		Expect(api.Create(ctx, pod)).To(Succeed())
		Expect(initContainers(pod)).To(Equal(want))
	},
		Entry("namespace, annotation declines, label wins", "enabled", "true", "false", injected),
		Entry("annotation alone, label declines", "", "false", "true", nil),
		Entry("declined by annotation, in a namespace that says nothing", "", "", "false", nil),
	)

	// An API server evaluates a loop in the square of the keys.
	DescribeTable("asks about every pod with many keys", func(ctx SpecContext, count int, asked bool) {
		pod := newPod(newNamespace(ctx, nil), map[string]string{})
		for i := range count {
			pod.Annotations[fmt.Sprintf("a%d", i)] = ""
		}
		before := running.count("skipped", inject.ReasonNotOptedIn)
		Expect(api.Create(ctx, pod)).To(Succeed())
		Expect(running.count("skipped", inject.ReasonNotOptedIn) > before).To(Equal(asked))
	},
		Entry("300", 300, false),
		Entry("301", 301, true),
	)

	It("exempts the namespaces of the cluster and of Shunt, whatever they and their pods say", func(ctx SpecContext) {
		for _, name := range []string{"kube-system", "kube-public", "kube-node-lease", shuntNamespace(ctx)} {
			ns := &corev1.Namespace{}
			ns.Name = name
			Expect(api.Get(ctx, keyOf(ns), ns)).To(Succeed())
			was := ns.DeepCopy()
			ns.Labels[annotation.NamespaceInjectionKey] = "enabled"
			Expect(api.Update(ctx, ns)).To(Succeed())
			pod := restricted(labelled(newPod(name, nil), map[string]string{annotation.InjectKey: "true"}))
			Expect(api.Create(ctx, pod)).To(Succeed(), name)
			Expect(initContainers(pod)).To(BeEmpty(), name)
			ns.Labels = was.Labels
			Expect(api.Update(ctx, ns)).To(Succeed())
		}
	})
})
