package inject

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Result is what became of a pod.
type Result struct {
	Decision
	// Pod is the injected pod; nil unless Inject.
	Pod *corev1.Pod
	// Warnings are for the pod's owner, one line each.
	Warnings []string
}

// Inject decides, plans and applies. The pod is not changed; of a refused or
// skipped pod the Result holds the reason and no pod.
func Inject(pod *corev1.Pod, ns Namespace, cfg Config) Result {
	decision, plan, warnings := decide(pod, ns, cfg)
	result := Result{Decision: decision, Warnings: warnings}
	if decision.Inject {
		result.Pod = plan.Apply(pod)
	}
	return result
}

// Apply returns a new pod with the plan put in. What an earlier injection
// left in it, by its status, is replaced.
func (p Plan) Apply(pod *corev1.Pod) *corev1.Pod {
	injected := withoutOurs(pod)
	planned := make([]corev1.Container, 0, len(p.InitContainers))
	for _, c := range p.InitContainers {
		planned = append(planned, *c.DeepCopy())
	}
	injected.Spec.InitContainers = slices.Concat(planned, injected.Spec.InitContainers)
	for _, v := range p.Volumes {
		injected.Spec.Volumes = append(injected.Spec.Volumes, *v.DeepCopy())
	}
	if injected.Annotations == nil {
		injected.Annotations = map[string]string{}
	}
	injected.Annotations[StatusKey] = p.Status.String()
	return injected
}
