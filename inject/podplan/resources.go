package podplan

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Resources is the unit of the resources of the pod as a whole
// (spec.resources).
type Resources struct {
	// Raised is what the pod gets in their place; nil where they stay.
	Raised *corev1.ResourceRequirements
	before *corev1.ResourceRequirements
}

// NewResources plans to raise those that a pod has by what our containers take.
// An API server denies a pod whose containers together request more than the
// pod does, or a regular one of which may have more than the pod. The pod's own
// containers keep what they were given, as they do where there are no such
// resources.
func NewResources(pod *corev1.Pod, init, proxy corev1.ResourceRequirements) Resources {
	own := pod.Spec.Resources
	if own == nil {
		return Resources{}
	}
	raised := own.DeepCopy()
	for name := range own.Requests {
		raise(raised.Requests, name, Requested(proxy, name), Requested(init, name))
	}
	for name := range own.Limits {
		raise(raised.Limits, name, limited(proxy, name), limited(init, name))
	}
	if equality.Semantic.DeepEqual(own, raised) {
		return Resources{}
	}
	return Resources{Raised: raised, before: own}
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

// Requested returns what a container requests: its limit where it has only
// that.
func Requested(r corev1.ResourceRequirements, name corev1.ResourceName) resource.Quantity {
	if quantity, present := r.Requests[name]; present {
		return quantity
	}
	return r.Limits[name]
}

// limited returns what a container may have: without a limit, at least what it
// requests.
func limited(r corev1.ResourceRequirements, name corev1.ResourceName) resource.Quantity {
	if quantity, present := r.Limits[name]; present {
		return quantity
	}
	return r.Requests[name]
}

const resourcesPath = "/spec/resources"

func (r *Resources) apply(edit *Edit) {
	if r.Raised != nil {
		edit.pod.Spec.Resources = r.Raised
		edit.replace(resourcesPath, r.Raised)
	}
}

func (r *Resources) record(status *Status) { status.Resources = r.before }

func (*Resources) undo(edit *Edit, status Status) {
	switch {
	case status.Resources == nil:
		return
	case edit.pod.Spec.Resources == nil: // somebody took them out
		edit.add(resourcesPath, status.Resources)
	default:
		edit.replace(resourcesPath, status.Resources)
	}
	edit.pod.Spec.Resources = status.Resources
}

func (r *Resources) compare(pod *corev1.Pod) (same bool, changed []string) {
	return r.Raised == nil || equality.Semantic.DeepDerivative(r.Raised, pod.Spec.Resources), nil
}

// SetQuantity sets a quantity in a list, which it makes where there is none.
func SetQuantity(list corev1.ResourceList, name corev1.ResourceName, quantity resource.Quantity) corev1.ResourceList {
	if list == nil {
		list = corev1.ResourceList{}
	}
	list[name] = quantity
	return list
}
