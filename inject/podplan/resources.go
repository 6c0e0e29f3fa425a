package podplan

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Resources is the unit of the resources of the pod as a whole
// (spec.resources).
type Resources struct {
	// Raised replaces the pod's; nil if they stay.
	Raised *corev1.ResourceRequirements
	before *corev1.ResourceRequirements
}

// NewResources plans to raise the pod's resources by those of our containers. An
// API server denies a pod whose containers together request more than the pod, or
// one of whose regular containers has a higher limit. The pod's own containers
// keep what they have.
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

// raise adds the quantity of what runs beside the pod's containers. What runs
// before them only needs the sum to be as large as its own.
func raise(list corev1.ResourceList, name corev1.ResourceName, beside, before resource.Quantity) {
	sum := list[name].DeepCopy()
	sum.Add(beside)
	if sum.Cmp(before) < 0 {
		sum = before
	}
	list[name] = sum
}

// Requested returns a container's request, or its limit if it has no request.
func Requested(r corev1.ResourceRequirements, name corev1.ResourceName) resource.Quantity {
	if quantity, present := r.Requests[name]; present {
		return quantity
	}
	return r.Limits[name]
}

// limited returns a container's limit, or its request if it has no limit.
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

// SetQuantity sets a quantity in a list, and makes the list if it is nil.
func SetQuantity(list corev1.ResourceList, name corev1.ResourceName, quantity resource.Quantity) corev1.ResourceList {
	if list == nil {
		list = corev1.ResourceList{}
	}
	list[name] = quantity
	return list
}
