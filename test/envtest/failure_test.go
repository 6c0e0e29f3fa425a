package envtest_test

import (
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/client-go/kubernetes"

	"github.com/shunt-dev/shunt/inject/annotation"
)

var _ = Describe("while the webhook is away", Ordered, Serial, func() {
	BeforeAll(func() { running.stop() })
	AfterAll(func(ctx SpecContext) { start(ctx) })

	It("no pod starts in a namespace that asks for the proxy", func(ctx SpecContext) {
		Expect(api.Create(ctx, newPod(newNamespace(ctx, enabled), nil))).
			To(MatchError(ContainSubstring(`failed calling webhook "namespace.shunt.dev"`)))
	})

	It("nor does one that asks for it itself", func(ctx SpecContext) {
		Expect(api.Create(ctx, newPod(newNamespace(ctx, nil), map[string]string{annotation.InjectKey: "true"}))).
			To(MatchError(ContainSubstring(`failed calling webhook "pod.shunt.dev"`)))
	})

	// An alert of config/prometheus goes by it.
	It("the API server counts what it could not ask", func(ctx SpecContext) {
		Expect(api.Create(ctx, newPod(newNamespace(ctx, enabled), nil))).NotTo(Succeed())
		clients, err := kubernetes.NewForConfig(admin)
		Expect(err).NotTo(HaveOccurred())
		text, err := clients.RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
		Expect(err).NotTo(HaveOccurred())
		var counts []string
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "apiserver_admission_webhook_rejection_count{") {
				counts = append(counts, line)
			}
		}
		Expect(counts).To(ContainElement(HavePrefix(`apiserver_admission_webhook_rejection_count{` +
			`error_type="calling_webhook_error",name="namespace.shunt.dev",operation="CREATE",`)))
	})

	It("all other pods start", func(ctx SpecContext) {
		Expect(api.Create(ctx, newPod(newNamespace(ctx, nil), nil))).To(Succeed())
		Expect(api.Create(ctx, newPod("kube-system", nil))).To(Succeed())
		Expect(api.Create(ctx, restricted(newPod(shuntNamespace(ctx), nil)))).To(Succeed())
		declines := labelled(newPod(newNamespace(ctx, enabled), nil), map[string]string{annotation.InjectKey: "false"})
		Expect(api.Create(ctx, declines)).To(Succeed())
	})
})
