package envtest_test

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/shunt-dev/shunt/inject/annotation"
)

// eventsIn are the Events of a namespace that the webhook wrote.
func eventsIn(ctx context.Context, namespace string) []eventsv1.Event {
	GinkgoHelper()
	list := &eventsv1.EventList{}
	Expect(api.List(ctx, list, client.InNamespace(namespace))).To(Succeed())
	var own []eventsv1.Event
	for _, event := range list.Items {
		if event.ReportingController == "shunt.dev/webhook" {
			own = append(own, event)
		}
	}
	return own
}

// ownedPod is a pod as a ReplicaSet's controller makes it.
func ownedPod(namespace, owner string, annotations map[string]string) *corev1.Pod {
	pod := newPod(namespace, annotations)
	pod.Name, pod.GenerateName = "", owner+"-"
	pod.OwnerReferences = []metav1.OwnerReference{
		{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: owner, UID: types.UID("uid-of-" + owner), Controller: new(true)},
	}
	return pod
}

var _ = Describe("a refused pod", func() {
	It("is an Event of its controller, counted on when it is refused again, and none in a dry run", func(ctx SpecContext) {
		ns := newNamespace(ctx, enabled)
		wrong := map[string]string{annotation.InterceptionModeKey: "BOTH"}
		Expect(api.Create(ctx, ownedPod(ns, "tried", wrong), client.DryRunAll)).NotTo(Succeed())
		Expect(api.Create(ctx, ownedPod(ns, "echo-5d9", wrong))).NotTo(Succeed())
		Eventually(ctx, func(g Gomega) {
			g.Expect(eventsIn(ctx, ns)).To(HaveLen(1))
		}).WithTimeout(20 * time.Second).WithPolling(50 * time.Millisecond).Should(Succeed())
		event := eventsIn(ctx, ns)[0]
		Expect(event.Regarding).To(Equal(corev1.ObjectReference{
			APIVersion: "apps/v1", Kind: "ReplicaSet", Namespace: ns, Name: "echo-5d9", UID: "uid-of-echo-5d9",
		}))
		Expect([]string{event.Type, event.Reason, event.Action}).To(Equal([]string{"Warning", "InvalidAnnotation", "Inject"}))
		Expect(event.Note).To(ContainSubstring(`pod "echo-5d9-": `))
		Expect(event.Note).To(ContainSubstring(`"BOTH": accepted: REDIRECT, TPROXY, NONE`))

		Expect(api.Create(ctx, ownedPod(ns, "echo-5d9", wrong))).NotTo(Succeed())
		Eventually(ctx, func(g Gomega) {
			all := eventsIn(ctx, ns)
			g.Expect(all).To(HaveLen(1))
			g.Expect(all[0].Series).NotTo(BeNil())
			g.Expect(all[0].Series.Count).To(BeNumerically("==", 2))
		}).WithTimeout(20 * time.Second).WithPolling(50 * time.Millisecond).Should(Succeed())
	})
})

var _ = Describe("a pod with warnings", func() {
	It("is an Event of its controller, counted on with the next, and none in a dry run", func(ctx SpecContext) {
		ns := newNamespace(ctx, enabled)
		mistyped := map[string]string{"sidecar.istio.io/interceptMode": "TPROXY"}
		Expect(api.Create(ctx, ownedPod(ns, "tried", mistyped), client.DryRunAll)).To(Succeed())
		for range 3 {
			Expect(api.Create(ctx, ownedPod(ns, "echo-5d9", mistyped))).To(Succeed())
		}
		Eventually(ctx, func(g Gomega) {
			all := eventsIn(ctx, ns)
			g.Expect(all).To(HaveLen(1))
			g.Expect(all[0].Series).NotTo(BeNil())
		}).WithTimeout(20 * time.Second).WithPolling(50 * time.Millisecond).Should(Succeed())
		event := eventsIn(ctx, ns)[0]
		Expect(event.Regarding.Kind + " " + event.Regarding.Name).To(Equal("ReplicaSet echo-5d9"))
		Expect([]string{event.Type, event.Reason, event.Action}).To(Equal([]string{"Warning", "InjectedWithWarnings", "Inject"}))
		Expect(event.Note).To(ContainSubstring("sidecar.istio.io/interceptMode"))
	})
})
