package inject

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
)

// raised are the resources of a pod as a whole (spec.resources) with what the
// proxy takes; nil where the pod has none, or none that the proxy takes. An API
// server refuses a pod whose containers together request more than the pod does,
// or an ordinary one of which may have more than the pod. The pod's own
// containers keep what they were given, as they do where there are no such
// resources.
func raised(pod *corev1.Pod, proxy corev1.Container, cfg Config) *corev1.ResourceRequirements {
	own := pod.Spec.Resources
	if own == nil {
		return nil
	}
	all := own.DeepCopy()
	for name := range own.Requests {
		raise(all.Requests, name, requested(proxy.Resources, name), requested(cfg.InitResources, name))
	}
	for name := range own.Limits {
		raise(all.Limits, name, limited(proxy.Resources, name), limited(cfg.InitResources, name))
	}
	if equality.Semantic.DeepEqual(own, all) {
		return nil
	}
	return all
}

// raise adds what runs beside the pod's containers. What runs before them needs
// no more than there is for all.
func raise(list corev1.ResourceList, name corev1.ResourceName, beside, before resource.Quantity) {
	sum := list[name].DeepCopy()
	sum.Add(beside)
	if sum.Cmp(before) < 0 {
		sum = before
	}
	list[name] = sum
}

// requested is what a container requests: its limit where it says only that.
func requested(r corev1.ResourceRequirements, name corev1.ResourceName) resource.Quantity {
	if quantity, said := r.Requests[name]; said {
		return quantity
	}
	return r.Limits[name]
}

// limited is what a container may have: without a limit, at least what it
// requests.
func limited(r corev1.ResourceRequirements, name corev1.ResourceName) resource.Quantity {
	if quantity, said := r.Limits[name]; said {
		return quantity
	}
	return r.Requests[name]
}

// patchResources does what Apply does to the resources of the pod as a whole.
func (p Plan) patchResources(pod, base *corev1.Pod) []Operation {
	const path = "/spec/resources"
	want := base.Spec.Resources
	if p.Resources != nil {
		want = p.Resources
	}
	switch {
	case equality.Semantic.DeepEqual(want, pod.Spec.Resources):
		return nil
	case want == nil:
		return []Operation{{Op: "remove", Path: path}}
	default:
		return []Operation{add(path, encode(want))}
	}
}
