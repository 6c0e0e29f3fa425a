package envtest_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/podplan"
)

var _ = Describe("an injected pod", func() {
	It("takes an ephemeral container, about which the webhook is not asked", func(ctx SpecContext) {
		pod := newPod(newNamespace(ctx, enabled), nil)
		Expect(api.Create(ctx, pod)).To(Succeed())
		before := running.count("skipped", inject.ReasonAlreadyInjected) + running.count("injected", inject.ReasonInjected)
		debugged := pod.DeepCopy()
		debugged.Spec.EphemeralContainers = []corev1.EphemeralContainer{{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "busybox"}, TargetContainerName: "shunt-proxy",
		}}
		Expect(api.SubResource("ephemeralcontainers").Update(ctx, debugged)).To(Succeed())
		stored := &corev1.Pod{}
		Expect(api.Get(ctx, client.ObjectKeyFromObject(pod), stored)).To(Succeed())
		Expect(stored.Spec.EphemeralContainers).To(HaveLen(1))
		Expect(initContainers(stored)).To(Equal([]string{"shunt-init", "shunt-proxy"}))
		Expect(running.count("skipped", inject.ReasonAlreadyInjected) + running.count("injected", inject.ReasonInjected)).To(Equal(before))
	})

	// With a regular sidecar container, too: the API server knows restartPolicy of init
	// containers, and sees here what those below 1.29 do.
	It("has a regular sidecar container if it asks for that, and goes back", func(ctx SpecContext) {
		ns := newNamespace(ctx, enabled)
		pod := newPod(ns, map[string]string{annotation.NativeSidecarKey: "false"})
		Expect(api.Create(ctx, pod)).To(Succeed())
		Expect(initContainers(pod)).To(Equal([]string{"shunt-init"}))
		Expect(pod.Spec.Containers).To(HaveLen(2))
		Expect(pod.Spec.Containers[0].Name).To(Equal(podplan.ProxyContainerName))
		Expect(pod.Spec.Containers[0].Lifecycle.PostStart.Exec.Command).To(ContainElement("wait"))

		again := newPod(ns, pod.Annotations)
		again.Spec = *pod.Spec.DeepCopy()
		before := running.count("skipped", inject.ReasonAlreadyInjected)
		Expect(api.Create(ctx, again)).To(Succeed())
		Expect(running.count("skipped", inject.ReasonAlreadyInjected)).To(Equal(before + 1))

		native := newPod(ns, pod.Annotations)
		native.Spec = *pod.Spec.DeepCopy()
		native.Annotations[annotation.NativeSidecarKey] = "true"
		Expect(api.Create(ctx, native)).To(Succeed())
		Expect(initContainers(native)).To(Equal([]string{"shunt-init", "shunt-proxy"}))
		Expect(native.Spec.Containers).To(HaveLen(1))
	})

	It("stays Guaranteed, by its containers and as a whole", func(ctx SpecContext) {
		ns := newNamespace(ctx, enabled)
		list := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m"), corev1.ResourceMemory: resource.MustParse("256Mi")}
		fixed := corev1.ResourceRequirements{Limits: list} // the API server makes requests of them
		create := func(annotations map[string]string, change func(*corev1.PodSpec)) *corev1.Pod {
			pod := newPod(ns, annotations)
			change(&pod.Spec)
			Expect(api.Create(ctx, pod)).To(Succeed())
			return pod
		}
		each := func(spec *corev1.PodSpec) {
			for i := range spec.Containers {
				spec.Containers[i].Resources = fixed
			}
		}
		Expect(create(nil, each).Status.QOSClass).To(Equal(corev1.PodQOSGuaranteed))
		Expect(create(map[string]string{annotation.NativeSidecarKey: "false"}, each).Status.QOSClass).To(Equal(corev1.PodQOSGuaranteed))
		whole := create(nil, func(spec *corev1.PodSpec) { spec.Resources = &fixed })
		Expect(whole.Status.QOSClass).To(Equal(corev1.PodQOSGuaranteed))
		contradicted := create(map[string]string{annotation.ProxyCPUKey: "250m", annotation.ProxyCPULimitKey: "1"}, each)
		Expect(contradicted.Status.QOSClass).To(Equal(corev1.PodQOSBurstable))
		Expect(create(nil, func(*corev1.PodSpec) {}).Status.QOSClass).To(Equal(corev1.PodQOSBurstable))

		again := newPod(ns, whole.Annotations)
		again.Spec = *whole.Spec.DeepCopy()
		before := running.count("skipped", inject.ReasonAlreadyInjected)
		Expect(api.Create(ctx, again)).To(Succeed())
		Expect(running.count("skipped", inject.ReasonAlreadyInjected)).To(Equal(before + 1))
		Expect(again.Status.QOSClass).To(Equal(corev1.PodQOSGuaranteed))
	})

	// Its containers' requests may not be more than its own: with the proxy's
	// the API server would refuse this one. Requests of a pod that says only
	// limits are what its containers request before the webhook is asked.
	It("has resources of its own that leave room for the proxy", func(ctx SpecContext) {
		list := func(cpu, memory string) corev1.ResourceList {
			return corev1.ResourceList{"cpu": resource.MustParse(cpu), "memory": resource.MustParse(memory)}
		}
		pod := newPod(newNamespace(ctx, enabled), nil)
		pod.Spec.Resources = &corev1.ResourceRequirements{Limits: list("500m", "256Mi")}
		pod.Spec.Containers[0].Resources.Requests = list("100m", "64Mi")
		before := pod.DeepCopy()
		Expect(api.Create(ctx, pod)).To(Succeed())
		alone := newPod(newNamespace(ctx, nil), nil)
		alone.Spec = *pod.Spec.DeepCopy()
		alone.Spec.Resources = &corev1.ResourceRequirements{Limits: list("500m", "256Mi"), Requests: list("100m", "64Mi")}
		Expect(api.Create(ctx, alone)).To(MatchError(ContainSubstring("spec.resources.requests")))
		Expect(pod.Spec.Resources.Limits["memory"]).To(Equal(resource.MustParse("1280Mi")))
		restored, ok := inject.Restore(pod)
		Expect(ok).To(BeTrue())
		was, is := before.Spec.Resources, restored.Pod().Spec.Resources
		Expect(is.Limits).To(HaveKeyWithValue(corev1.ResourceName("memory"), was.Limits["memory"]))
		Expect(is.Requests["memory"]).To(Equal(resource.MustParse("64Mi")))
	})

	It("loses what was added to our containers, and its owner is told", func(ctx SpecContext) {
		ns := newNamespace(ctx, enabled)
		pod := newPod(ns, nil)
		Expect(api.Create(ctx, pod)).To(Succeed())
		added := newPod(ns, pod.Annotations)
		added.Spec = *pod.Spec.DeepCopy()
		added.Spec.Volumes = append(added.Spec.Volumes, corev1.Volume{Name: "evil", VolumeSource: corev1.VolumeSource{
			ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "evil"}},
		}})
		first := &added.Spec.InitContainers[0]
		first.Env = append(first.Env, corev1.EnvVar{Name: "LD_PRELOAD", Value: "/evil.so"})
		first.VolumeMounts = append(first.VolumeMounts, corev1.VolumeMount{Name: "evil", MountPath: "/shunt-init", SubPath: "shunt-init"})
		user, told := warned()
		Expect(user.Create(ctx, added)).To(Succeed())
		Expect(added.Spec.InitContainers[0].Env).To(BeEmpty())
		Expect(added.Spec.InitContainers[0].VolumeMounts).To(Equal(pod.Spec.InitContainers[0].VolumeMounts))
		Expect(told.texts).To(ConsistOf(HaveSuffix("init container shunt-init differs in env, volumeMounts")))
	})
})
