package envtest_test

import (
	"context"
	"net"
	"slices"
	"strconv"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
)

// pods is the value of shunt_webhook_pods; -1 if it has none.
func (i *instance) pods(state inject.Standing) float64 {
	GinkgoHelper()
	families, err := i.registry.Gather()
	Expect(err).NotTo(HaveOccurred())
	for _, family := range families {
		if family.GetName() != "shunt_webhook_pods" {
			continue
		}
		for _, metric := range family.GetMetric() {
			if metric.GetLabel()[0].GetValue() == string(state) {
				return metric.GetGauge().GetValue()
			}
		}
	}
	return -1
}

var _ = Describe("the count of pods", func() {
	It("tells of pods without the proxy, once the webhook may list them", func(ctx SpecContext) {
		ns := newNamespace(ctx, nil)
		for range 3 {
			Expect(api.Create(ctx, newPod(ns, nil))).To(Succeed())
		}
		counting := newInstance()
		counting.countPods = time.Second
		_, port, err := net.SplitHostPort(freeAddress())
		Expect(err).NotTo(HaveOccurred())
		number, err := strconv.Atoi(port)
		Expect(err).NotTo(HaveOccurred())
		counting.run(ctx, config.Default(), number)
		defer counting.stop()
		missing := func(context.Context) float64 { return counting.pods(inject.StandingMissing) }
		Consistently(ctx, missing).WithTimeout(3*time.Second).Should(BeEquivalentTo(-1), "without the right to list pods")

		const folder = "../../config/prometheus"
		isRight := isKind("ClusterRole", "ClusterRoleBinding")
		createFrom(ctx, folder, isRight)
		DeferCleanup(func(ctx SpecContext) { // other specs look what the account may not do
			for _, object := range slices.DeleteFunc(objectsFrom(folder), func(o *unstructured.Unstructured) bool { return !isRight(o) }) {
				Expect(api.Delete(ctx, object)).To(Succeed())
			}
		})
		Eventually(ctx, missing).WithTimeout(30 * time.Second).Should(BeNumerically(">=", 0))
		before := missing(ctx)
		labelled := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}
		Expect(api.Patch(ctx, labelled, client.RawPatch(types.MergePatchType,
			[]byte(`{"metadata":{"labels":{"`+annotation.NamespaceInjectionKey+`":"enabled"}}}`)))).To(Succeed())
		Eventually(ctx, missing).WithTimeout(30 * time.Second).Should(BeEquivalentTo(before + 3))
	})
})
