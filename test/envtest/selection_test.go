package envtest_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
)

// Which pods the manifest that ships has the API server ask about.
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
		Entry("nothing said", "", "", "", nil),
		Entry("namespace", "enabled", "", "", injected),
		Entry("namespace, label declines", "enabled", "false", "", nil),
		Entry("namespace, annotation declines", "enabled", "", "false", nil),
		Entry("namespace, annotation declines, label wins", "enabled", "true", "false", injected),
		Entry("label alone", "", "true", "", injected),
		Entry("annotation alone", "", "", "true", injected),
		Entry("annotation alone, label declines", "", "false", "true", nil),
		Entry("declined by annotation, in a namespace that says nothing", "", "", "false", nil),
		Entry("namespace declines", "disabled", "", "", nil),
	)

	It("warns who asks in a namespace that declines", func(ctx SpecContext) {
		user, told := warned()
		pod := labelled(newPod(newNamespace(ctx, map[string]string{annotation.NamespaceInjectionKey: "disabled"}), nil),
			map[string]string{annotation.InjectKey: "true"})
		before := running.count("skipped", inject.ReasonNamespaceOptedOut)
		Expect(user.Create(ctx, pod)).To(Succeed())
		Expect(initContainers(pod)).To(BeEmpty())
		Expect(told.texts).To(ConsistOf(ContainSubstring("the namespace says istio-injection: disabled")))
		Expect(running.count("skipped", inject.ReasonNamespaceOptedOut)).To(Equal(before + 1))
	})

	It("refuses a wish that is none, in any namespace", func(ctx SpecContext) {
		Expect(api.Create(ctx, newPod(newNamespace(ctx, nil), map[string]string{annotation.InjectKey: "yes"}))).
			To(MatchError(ContainSubstring(`metadata.annotations[sidecar.istio.io/inject]: Invalid value: "yes": accepted: true, false`)))
	})

	It("leaves pods of the host's network alone", func(ctx SpecContext) {
		pod := newPod(newNamespace(ctx, enabled), nil)
		pod.Spec.HostNetwork = true
		before := running.count("skipped", inject.ReasonHostNetwork)
		Expect(api.Create(ctx, pod)).To(Succeed())
		Expect(initContainers(pod)).To(BeEmpty())
		Expect(running.count("skipped", inject.ReasonHostNetwork)).To(Equal(before + 1))
	})

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
