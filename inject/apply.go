package inject

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
)

// Apply returns a new pod with the plan put in. What an earlier injection
// left in it, by its status, is replaced.
func (p Plan) Apply(pod *corev1.Pod) *corev1.Pod {
	injected := withoutOurs(pod, volumesNamed(p.Volumes))
	if injected == pod {
		injected = pod.DeepCopy()
	}
	setProbes(injected, p.Probes)
	injected.Spec.InitContainers = before(injected.Spec.InitContainers, p.InitContainers)
	injected.Spec.Containers = before(injected.Spec.Containers, p.Containers)
	for _, v := range p.Volumes {
		injected.Spec.Volumes = append(injected.Spec.Volumes, *v.DeepCopy())
	}
	injected.Spec.ImagePullSecrets = append(injected.Spec.ImagePullSecrets, p.ImagePullSecrets...)
	setSysctls(injected, p.Sysctls)
	if p.Resources != nil {
		injected.Spec.Resources = p.Resources.DeepCopy()
	}
	if injected.Annotations == nil {
		injected.Annotations = map[string]string{}
	}
	maps.Copy(injected.Annotations, p.Annotations)
	injected.Annotations[StatusKey] = p.Status.String()
	return injected
}

// before is the containers with copies of the planned ones before them.
func before(own, planned []corev1.Container) []corev1.Container {
	if len(planned) == 0 {
		return own
	}
	all := make([]corev1.Container, 0, len(planned)+len(own))
	for i := range planned {
		all = append(all, *planned[i].DeepCopy())
	}
	return append(all, own...)
}
