package e2e_test

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var _ = Describe("kubectl shunt check", Label(short), func() {
	It("finds no fault, and sees the certificate that a pod serves", func(ctx SpecContext) {
		namespace := newNamespace(ctx, true)
		create(ctx, newPod(namespace, "first"))
		ready(ctx, namespace, "first")
		found := kubectl(ctx, "shunt", "check", "-n", namespace)
		Expect(found).To(And(
			MatchRegexp(`(?m)^OK +Certificate .* served by Pod shunt-system/shunt-webhook-`),
			ContainSubstring("up to date: 1"),
		))
		Expect(found).NotTo(MatchRegexp(`(?m)^(WARN|FAIL)`))
	})
})

// checkOf returns what kubectl shunt check prints of a namespace, whatever its exit code.
func checkOf(ctx context.Context, namespace string) string {
	out, _ := tryKubectl(ctx, "shunt", "check", "-n", namespace)
	return out
}

var _ = Describe("kubectl shunt check of what is broken", func() {
	finds := func(ctx context.Context, namespace string, lines ...string) {
		GinkgoHelper()
		Eventually(ctx, func(g Gomega) {
			found := checkOf(ctx, namespace)
			for _, line := range lines {
				g.Expect(found).To(MatchRegexp("(?m)^" + line))
			}
		}).WithTimeout(90 * time.Second).WithPolling(2 * time.Second).Should(Succeed())
	}

	It("names workloads that are denied, until they are mended", func(ctx SpecContext) {
		namespace := newNamespace(ctx, true)
		wrong := func(name string) corev1.PodTemplateSpec {
			pod := newPod(namespace, name)
			pod.Annotations[modeKey] = "BOTH"
			return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels, Annotations: pod.Annotations}, Spec: pod.Spec}
		}
		meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: namespace, Name: name} }
		selector := func(name string) *metav1.LabelSelector {
			return metav1.SetAsLabelSelector(map[string]string{"e2e": name})
		}
		once := wrong("once")
		once.Spec.RestartPolicy = corev1.RestartPolicyNever
		create(ctx,
			&appsv1.Deployment{ObjectMeta: meta("web"), Spec: appsv1.DeploymentSpec{Selector: selector("web"), Template: wrong("web")}},
			&appsv1.StatefulSet{ObjectMeta: meta("set"), Spec: appsv1.StatefulSetSpec{
				Selector: selector("set"), Template: wrong("set"), ServiceName: "set", Replicas: new(int32(2)),
			}},
			&appsv1.DaemonSet{ObjectMeta: meta("agent"), Spec: appsv1.DaemonSetSpec{Selector: selector("agent"), Template: wrong("agent")}},
			&batchv1.Job{ObjectMeta: meta("once"), Spec: batchv1.JobSpec{Template: once}},
		)
		denied := func(object string) string {
			return `FAIL +WorkloadDenied +` + object + ` +its pods are not created: .*"BOTH": accepted: REDIRECT, TPROXY, NONE`
		}
		finds(ctx, namespace, denied("Deployment/"+namespace+"/web"), denied("StatefulSet/"+namespace+"/set"),
			denied("DaemonSet/"+namespace+"/agent"), denied("Job/"+namespace+"/once"))

		mended := `{"spec":{"template":{"metadata":{"annotations":{"` + modeKey + `":"TPROXY"}}}}}`
		for _, workload := range []string{"deployment/web", "statefulset/set"} {
			kubectl(ctx, "-n", namespace, "patch", workload, "--patch", mended)
			rolledOut(ctx, namespace, workload)
		}
		Expect(kubectl(ctx, "-n", namespace, "get", "events", "--field-selector=reason=FailedCreate,involvedObject.kind=StatefulSet")).
			To(ContainSubstring("BOTH"), "its Event should still be there")
		Expect(checkOf(ctx, namespace)).NotTo(MatchRegexp(`WorkloadDenied +(Deployment|StatefulSet)`))
	}, NodeTimeout(5*time.Minute))

	It("names a namespace and a workload that ask in vain", func(ctx SpecContext) {
		typo, namespace := newNamespace(ctx, false), newNamespace(ctx, true)
		kubectl(ctx, "label", "namespace", typo, enabledKey+"=true")
		web := newDeployment(namespace, "web")
		web.Annotations = map[string]string{modeKey: "TPROXY"}
		web.Spec.Template.Annotations["sidecar.istio.io/interceptMode"] = "TPROXY"
		create(ctx, web)
		finds(ctx, typo, `FAIL +Ignored +Namespace/`+typo+` +metadata\.labels\[istio-injection\]: Invalid value: "true"`)
		object := `Deployment/` + namespace + `/web`
		finds(ctx, namespace,
			`WARN +Ignored +`+object+` +spec\.template\.metadata\.annotations\[sidecar\.istio\.io/interceptMode\]: unknown key`,
			`WARN +Ignored +`+object+` +metadata\.annotations\[sidecar\.istio\.io/interceptionMode\]: no effect here`)
	})

	It("names an init image that cannot be had", func(ctx SpecContext) {
		namespace := newNamespace(ctx, true)
		const none = "shunt-init:forgotten"
		useInitImage(ctx, initImage, none)
		DeferCleanup(func(ctx SpecContext) { useInitImage(ctx, none, initImage) }, NodeTimeout(3*time.Minute))
		web := newDeployment(namespace, "web")
		web.Spec.Replicas = new(int32(2))
		create(ctx, web)
		finds(ctx, namespace, `FAIL +PodFailing +Pod/`+namespace+`/web-\S+ +shunt-init: (ErrImagePull|ImagePullBackOff), image `+none+`: `+
			`.*; and 1 more of Deployment/`+namespace+`/web`)
	}, NodeTimeout(5*time.Minute))

	It("names what a rollout of the webhook waits for", func(ctx SpecContext) {
		namespace := newNamespace(ctx, true)
		kubectl(ctx, "-n", system, "set", "image", "deployment/shunt-webhook", "webhook=shunt-webhook:forgotten")
		DeferCleanup(func(ctx SpecContext) {
			kubectl(ctx, "-n", system, "rollout", "undo", "deployment/shunt-webhook")
			rolledOut(ctx, system, "deployment/shunt-webhook")
		}, NodeTimeout(3*time.Minute))
		finds(ctx, namespace, `WARN +Deployment +Deployment/shunt-system/shunt-webhook +the rollout is not complete: 1 of 2 replicas`,
			`WARN +Deployment +Pod/\S+/shunt-webhook-\S+ +webhook: (ErrImagePull|ImagePullBackOff), image shunt-webhook:forgotten: `)
	}, NodeTimeout(5*time.Minute))
})
