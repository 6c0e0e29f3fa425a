package envtest_test

import (
	"context"
	"strings"

	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/cases"
	"github.com/shunt-dev/shunt/inject/config"
)

var _ = Describe("a pod of a namespace that asks for the proxy", func() {
	It("is injected in a dry run, which leaves nothing behind", func(ctx SpecContext) {
		pod := newPod(newNamespace(ctx, enabled), nil)
		Expect(api.Create(ctx, pod, client.DryRunAll)).To(Succeed())
		Expect(initContainers(pod)).To(Equal([]string{"shunt-init", "shunt-proxy"}))
		pods := &corev1.PodList{}
		Expect(api.List(ctx, pods, client.InNamespace(pod.Namespace))).To(Succeed())
		Expect(pods.Items).To(BeEmpty())
	})

	It("is left as it is when it was injected before", func(ctx SpecContext) {
		ns := newNamespace(ctx, enabled)
		first := newPod(ns, nil)
		Expect(api.Create(ctx, first)).To(Succeed())
		before := running.count("skipped", inject.ReasonAlreadyInjected)
		second := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "copy", Namespace: ns, Annotations: first.Annotations}, Spec: first.Spec,
		}
		Expect(api.Create(ctx, second)).To(Succeed())
		Expect(cmp.Diff(first.Spec, second.Spec)).To(BeEmpty())
		Expect(running.count("skipped", inject.ReasonAlreadyInjected)).To(Equal(before + 1))
	})
})

// asked says whether the API server asks about a case's pod, by the table in
// config/webhook/manifests.yaml.
func asked(c cases.Case) bool {
	says := func(values map[string]string, wish func(string) bool) bool {
		for key, value := range values {
			if strings.EqualFold(key, annotation.InjectKey) && wish(value) {
				return true
			}
		}
		return false
	}
	anything := func(string) bool { return true }
	notFalse := func(value string) bool { return value != "false" }
	ofNamespace, named := c.Namespace.Labels[annotation.RevisionKey]
	ofPod, namedByPod := c.Pod.Labels[annotation.RevisionKey]
	switch {
	case c.Pod.Labels[annotation.InjectKey] == "false":
		return false
	case c.Namespace.Labels[annotation.NamespaceInjectionKey] == "enabled":
		return true
	case named:
		return ofNamespace == config.DefaultRevision && c.Namespace.Labels[annotation.NamespaceInjectionKey] != "disabled"
	case namedByPod:
		return ofPod == config.DefaultRevision
	default:
		return says(c.Pod.Labels, anything) || says(c.Pod.Annotations, notFalse)
	}
}

// Every case of package inject that has the running webhook's configuration
// goes through the API server: an injected pod is one that it accepts.
var _ = Describe("the corpus", func() {
	all, err := cases.Load("../../inject/testdata/cases")
	if err != nil {
		panic(err) // before any spec runs, where nothing else can be said
	}
	ran := 0
	for _, c := range all {
		if !cmp.Equal(c.Config, config.Default()) {
			continue
		}
		ran++
		It(c.Name, func(ctx SpecContext) { checkCase(ctx, c) })
	}
	It("is there", func() { Expect(ran).To(BeNumerically(">", 50)) })
})

func checkCase(ctx context.Context, c cases.Case) {
	GinkgoHelper()
	reason, rest, _ := strings.Cut(c.Want(), "\n")
	ns := newAnnotatedNamespace(ctx, c.Namespace.Labels, c.Namespace.Annotations)
	pod := c.Pod.DeepCopy()
	pod.Namespace, pod.ResourceVersion, pod.UID = ns, "", ""
	if pod.Name == "" && pod.GenerateName == "" {
		pod.GenerateName = "case-" // as a template's controller does
	}
	result := "skipped"
	switch {
	case inject.Reason(reason) == inject.ReasonInjected:
		result = "injected"
	case inject.Reason(reason).Denies():
		result = "denied"
	}
	before := running.count(result, inject.Reason(reason))
	user, told := warned()
	err := user.Create(ctx, pod)
	counted := 0.0
	if asked(c) {
		counted = 1
	}
	Expect(running.count(result, inject.Reason(reason))).To(Equal(before+counted), "%s %s: %v", result, reason, err)
	for line := range strings.Lines(rest) {
		kind, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch {
		case kind == "error":
			Expect(err).To(MatchError(ContainSubstring(text)))
		case counted == 1:
			Expect(told.texts).To(ContainElement(text))
		}
	}
	switch result {
	case "injected":
		Expect(err).NotTo(HaveOccurred())
		want := inject.Inject(c.Pod, c.Namespace, c.Config).Pod
		Expect(initContainers(pod)).To(Equal(initContainers(want)))
		Expect(sysctls(pod)).To(Equal(sysctls(want)))
	case "skipped":
		Expect(err).NotTo(HaveOccurred())
		Expect(initContainers(pod)).To(Equal(initContainers(c.Pod)))
	}
}
