package e2e_test

import (
	"context"
	"regexp"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var _ = Describe("the installation", Label(short), func() {
	It("has a certificate that is trusted, and two replicas", func(ctx SpecContext) {
		secret := &corev1.Secret{}
		Expect(api.Get(ctx, client.ObjectKey{Namespace: system, Name: "shunt-webhook-cert"}, secret)).To(Succeed())
		// After a rotation cert-manager keeps the earlier authority until it expires.
		Expect(bundles(ctx)).To(And(HaveLen(3), HaveEach(ContainSubstring(strings.TrimSpace(string(secret.Data["ca.crt"]))))))
		deployment := &appsv1.Deployment{}
		Expect(api.Get(ctx, client.ObjectKey{Namespace: system, Name: "shunt-webhook"}, deployment)).To(Succeed())
		Expect(deployment.Status.ReadyReplicas).To(BeEquivalentTo(2))
	})

	It("puts the proxy into pods where it is asked for, and runs them", func(ctx SpecContext) {
		namespace := newNamespace(ctx, true)
		declines := newPod(namespace, "declines")
		declines.Labels["sidecar.istio.io/inject"] = "false"
		create(ctx, newPod(namespace, "first"), declines)
		Expect(injected(ready(ctx, namespace, "first"))).To(BeTrue())
		Expect(injected(ready(ctx, namespace, "declines"))).To(BeFalse())

		other := newNamespace(ctx, false)
		asks := newPod(other, "asks")
		asks.Labels["sidecar.istio.io/inject"] = "true"
		create(ctx, newPod(other, "silent"), asks)
		Expect(injected(ready(ctx, other, "silent"))).To(BeFalse())
		Expect(injected(ready(ctx, other, "asks"))).To(BeTrue())
	})

	It("is asked about a pod once, and only the pod's own containers have its token", func(ctx SpecContext) {
		namespace, modes := newNamespace(ctx, true), []string{"REDIRECT", "TPROXY", "NONE"}
		for _, mode := range modes {
			pod := newPod(namespace, strings.ToLower(mode))
			pod.Annotations[modeKey] = mode
			before := admissions(ctx)
			create(ctx, pod)
			after := admissions(ctx)
			Expect(after.since(before).count()).To(BeEquivalentTo(1), mode)
		}
		for _, mode := range modes {
			pod := ready(ctx, namespace, strings.ToLower(mode))
			Expect(injected(pod)).To(BeTrue())
			holders := []string{}
			for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
				for _, mount := range container.VolumeMounts {
					if strings.HasPrefix(mount.Name, "kube-api-access") {
						holders = append(holders, container.Name)
					}
				}
			}
			Expect(holders).To(HaveExactElements("app"), mode)
		}
	})

	It("denies a pod that runs as the proxy, with the reason", func(ctx SpecContext) {
		pod := newPod(newNamespace(ctx, true), "proxy-uid")
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64(1337))}
		Expect(api.Create(ctx, pod)).To(MatchError(ContainSubstring("1337")))
	})
})

// ofNode matches the objects of the node of hack/node.sh, which has the name of the agent's objects.
var ofNode = regexp.MustCompile(`^(node|csinode\.storage\.k8s\.io|lease\.coordination\.k8s\.io)/shunt-node$`)

// expectNothingLeft checks that a deletion has deleted everything that was installed.
func expectNothingLeft(ctx context.Context) {
	GinkgoHelper()
	// All kinds of objects, in all namespaces. Events are left out: they record the past, and
	// expire.
	kinds := slices.DeleteFunc(strings.Fields(kubectl(ctx, "api-resources", "--verbs=list", "-o", "name")), func(kind string) bool {
		return strings.HasPrefix(kind, "events")
	})
	left := []string{}
	for object := range strings.FieldsSeq(kubectl(ctx, "get", strings.Join(kinds, ","), "-A", "--ignore-not-found", "-o", "name")) {
		if strings.Contains(object, "shunt") && !ofNode.MatchString(object) {
			left = append(left, object)
		}
	}
	Expect(left).To(BeEmpty())
	// No webhook is called any more, so pods are created without the proxy.
	pod := newPod(newNamespace(ctx, true), "after")
	create(ctx, pod)
	Expect(injected(pod)).To(BeFalse())
}
