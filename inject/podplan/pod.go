package podplan

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// SpecPath is the path of a pod's spec.
var SpecPath = field.NewPath("spec")

// Placed is a container and its place in the pod.
type Placed struct {
	*corev1.Container
	List  string // initContainers or containers
	Index int
}

// Path returns the container's path in the pod.
func (p Placed) Path() *field.Path { return SpecPath.Child(p.List).Index(p.Index) }

// EachContainer calls f for every container of the pod, the init containers
// first, and stops when f returns false.
func EachContainer(pod *corev1.Pod, f func(Placed) bool) {
	for i := range pod.Spec.InitContainers {
		if !f(Placed{&pod.Spec.InitContainers[i], "initContainers", i}) {
			return
		}
	}
	for i := range pod.Spec.Containers {
		if !f(Placed{&pod.Spec.Containers[i], "containers", i}) {
			return
		}
	}
}

// AllContainers returns every container of the pod, the init containers first.
func AllContainers(pod *corev1.Pod) []Placed {
	all := make([]Placed, 0, len(pod.Spec.InitContainers)+len(pod.Spec.Containers))
	EachContainer(pod, func(c Placed) bool {
		all = append(all, c)
		return true
	})
	return all
}

// Container returns the pod's container of a name, or nil.
func Container(pod *corev1.Pod, name string) (found *Placed) {
	EachContainer(pod, func(c Placed) bool {
		if c.Name == name {
			found = &c
		}
		return found == nil
	})
	return found
}

// HasContainers reports whether a pod has one of the injector's containers.
func HasContainers(pod *corev1.Pod) bool {
	return Container(pod, InitContainerName) != nil || Container(pod, ProxyContainerName) != nil
}

// byName returns the first container of each name.
func byName(pod *corev1.Pod) map[string]Placed {
	all := make(map[string]Placed, len(pod.Spec.InitContainers)+len(pod.Spec.Containers))
	EachContainer(pod, func(c Placed) bool {
		if _, there := all[c.Name]; !there {
			all[c.Name] = c
		}
		return true
	})
	return all
}

// MaxPort is the highest port. Kubernetes denies others, but after the webhook.
const MaxPort = 1<<16 - 1

// PortNumber returns the number of a probe's port, which may be a name; 0 if the
// container has no such port.
func PortNumber(c *corev1.Container, port intstr.IntOrString) uint16 {
	number := port.IntVal
	if port.Type == intstr.String {
		i := slices.IndexFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == port.StrVal })
		if i < 0 {
			return 0
		}
		number = c.Ports[i].ContainerPort
	}
	if number < 1 || number > MaxPort {
		return 0
	}
	return uint16(number)
}

// Protocol returns a declared port's protocol; the default is TCP.
func Protocol(port corev1.ContainerPort) corev1.Protocol {
	return cmp.Or(port.Protocol, corev1.ProtocolTCP)
}

// namesOf returns the elements' names, and never nil.
func namesOf[T any](elements []T, name func(*T) string) []string {
	all := make([]string, len(elements))
	for i := range elements {
		all[i] = name(&elements[i])
	}
	return all
}

// missing describes the planned names that are not among the actual ones.
func missing(kind string, planned, actual []string) []string {
	have := sets.New(actual...)
	var found []string
	for _, name := range planned {
		if !have.Has(name) {
			found = append(found, kind+" "+name+" is missing")
		}
	}
	return found
}

// containsEach reports whether all planned elements are among the actual ones.
func containsEach[T comparable](actual, planned []T) bool {
	return !slices.ContainsFunc(planned, func(want T) bool { return !slices.Contains(actual, want) })
}
