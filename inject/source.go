package inject

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/strict"
)

// source is where the settings of a request were read: a pod's annotations,
// and its namespace's for what the pod has none of.
type source struct{ pod, namespace map[string]string }

func newSource(pod *corev1.Pod, ns Namespace) source {
	return source{pod: pod.Annotations, namespace: ns.Annotations}
}

// place is where a key's value came from. One that is nowhere is the pod's to
// set.
func (s source) place(key string) Place {
	if _, own := s.pod[key]; own {
		return PodAnnotation
	}
	if _, present := s.namespace[key]; present {
		return NamespaceAnnotation
	}
	return PodAnnotation
}

// ofNamespace reports whether a key's value is the namespace's. It holds for
// pods that were not written with it in mind, as the configuration does, and so
// it gives way in some places where a pod's own value refuses the pod.
func (s source) ofNamespace(key string) bool { return s.place(key) == NamespaceAnnotation }

// overridden reports whether what stands in the place is not read, because the
// pod says something else.
func (s source) overridden(key string, place Place) bool {
	_, own := s.pod[key]
	return own && place == NamespaceAnnotation
}

// has reports whether a key stands anywhere.
func (s source) has(key string) bool {
	_, own := s.pod[key]
	_, shared := s.namespace[key]
	return own || shared
}

func (s source) text(key string) string {
	if s.ofNamespace(key) {
		return s.namespace[key]
	}
	return s.pod[key]
}

// path leads to a key's value.
func (s source) path(key string) *field.Path { return paths[s.place(key)].Key(key) }

// name is what messages call a key that they mention on the side.
func (s source) name(key string) string {
	if s.ofNamespace(key) {
		return "the namespace's " + key
	}
	return key
}

// invalid refuses the value of an annotation, be it the pod's or the
// namespace's.
func (s source) invalid(key, detail string) *field.Error {
	return field.Invalid(s.path(key), strict.Shorten(s.text(key)), detail)
}

// idleInNone reports whether what a namespace says of the interception is
// without object, because the pod itself wants none.
func (r request) idleInNone(key string) bool {
	return r.mode == interception.ModeNone && r.from.ofNamespace(key) && !r.from.ofNamespace(InterceptionModeKey)
}
