package envtest_test

import (
	"regexp"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// levels are Kubernetes' Pod Security levels, from the laxest to the strictest.
var levels = []string{"privileged", "baseline", "restricted"}

// levelRow is a row of the table in docs/images.md: a mode, and the strictest
// level that an injected pod of it meets.
var levelRow = regexp.MustCompile("(?m)^\\| `(REDIRECT|TPROXY|NONE)` \\| `(privileged|baseline|restricted)` \\|")

var _ = Describe("a pod that would be restricted without the proxy", func() {
	It("meets, with it, the level that docs/images.md says of its mode", func(ctx SpecContext) {
		rows := levelRow.FindAllStringSubmatch(contentOf("../../docs/images.md"), -1)
		Expect(rows).To(HaveLen(3))
		for _, level := range levels {
			ns := newNamespace(ctx, map[string]string{
				annotation.NamespaceInjectionKey: "enabled", "pod-security.kubernetes.io/enforce": level,
			})
			// Without the proxy it is admitted at every level.
			plain := labelled(restricted(newPod(ns, nil)), map[string]string{annotation.InjectKey: "false"})
			Expect(api.Create(ctx, plain, client.DryRunAll)).To(Succeed())
			for _, row := range rows {
				mode, strictest := row[1], row[2]
				pod := restricted(newPod(ns, map[string]string{annotation.InterceptionModeKey: mode}))
				err := api.Create(ctx, pod, client.DryRunAll)
				if place(level) <= place(strictest) {
					Expect(err).NotTo(HaveOccurred(), "%s at level %s", mode, level)
					Expect(initContainers(pod)).To(ContainElement(podplan.ProxyContainerName))
					continue
				}
				// Whoever owns the pod is told before the API server would say it of the containers.
				Expect(err).To(MatchError(ContainSubstring("at level "+level+" no container may have NET_ADMIN")),
					"%s at level %s", mode, level)
				Expect(api.Create(ctx, injectedAnyway(ns, mode), client.DryRunAll)).
					To(MatchError(ContainSubstring(`violates PodSecurity "`+level)), "%s at level %s", mode, level)
			}
		}
	})
})

// injectedAnyway is a pod that was injected before the API server sees it, and
// that no webhook is asked about.
func injectedAnyway(ns, mode string) *corev1.Pod {
	GinkgoHelper()
	result := inject.Inject(restricted(newPod(ns, map[string]string{annotation.InterceptionModeKey: mode})),
		annotation.Namespace{Name: ns, Labels: enabled}, config.Default())
	Expect(result.Inject).To(BeTrue())
	return labelled(result.Pod, map[string]string{annotation.InjectKey: "false"})
}

// place is that of a level among all.
func place(level string) int {
	for i, l := range levels {
		if l == level {
			return i
		}
	}
	Fail("no level " + level)
	return 0
}
