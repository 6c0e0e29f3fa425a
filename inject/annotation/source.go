package annotation

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/strict"
)

// Place is where a key stands.
type Place string

// The values of Place.
const (
	PodAnnotation       Place = "pod annotation"
	PodLabel            Place = "pod label"
	NamespaceAnnotation Place = "namespace annotation"
	NamespaceLabel      Place = "namespace label"
)

// Namespace is what the decision needs to know of a pod's namespace.
type Namespace struct {
	Name        string
	Labels      map[string]string
	Annotations map[string]string
}

// PodPlaces are those of the pod itself.
var PodPlaces = []Place{PodAnnotation, PodLabel}

// Paths are the fields of a pod, or of its namespace, that hold the keys of each
// place.
var Paths = map[Place]*field.Path{
	PodAnnotation:       field.NewPath("metadata", "annotations"),
	PodLabel:            field.NewPath("metadata", "labels"),
	NamespaceAnnotation: field.NewPath(NamespaceField, "metadata", "annotations"),
	NamespaceLabel:      field.NewPath("metadata", "labels"),
}

// NamespaceField begins the paths of what a pod is denied for and does not have
// itself.
const NamespaceField = "namespace"

// OfNamespace reports whether a field of Decision.Errors is not the pod's, but
// its namespace's.
func OfNamespace(path string) bool { return strings.HasPrefix(path, NamespaceField+".") }

// Source is where the settings of a request were read: a pod's annotations,
// and its namespace's for what the pod has none of.
type Source struct{ pod, namespace map[string]string }

func newSource(pod *corev1.Pod, ns Namespace) Source {
	return Source{pod: pod.Annotations, namespace: ns.Annotations}
}

// Place returns where a key's value came from. One that is nowhere is the pod's to
// set.
func (s Source) Place(key string) Place {
	if _, own := s.pod[key]; own {
		return PodAnnotation
	}
	if _, present := s.namespace[key]; present {
		return NamespaceAnnotation
	}
	return PodAnnotation
}

// FromNamespace reports whether a key's value is the namespace's. It holds for
// pods that were not written with it in mind, as the configuration does, and so
// it gives way in some places where the pod's own value is denied.
func (s Source) FromNamespace(key string) bool { return s.Place(key) == NamespaceAnnotation }

// overridden reports whether what stands in the place is not read, because the
// pod says something else.
func (s Source) overridden(key string, place Place) bool {
	_, own := s.pod[key]
	return own && place == NamespaceAnnotation
}

// Has reports whether a key stands anywhere.
func (s Source) Has(key string) bool {
	_, own := s.pod[key]
	_, shared := s.namespace[key]
	return own || shared
}

// Text returns a key's value; empty where it stands nowhere.
func (s Source) Text(key string) string {
	if s.FromNamespace(key) {
		return s.namespace[key]
	}
	return s.pod[key]
}

// Path returns the field that holds a key's value.
func (s Source) Path(key string) *field.Path { return Paths[s.Place(key)].Key(key) }

// Name returns what messages call a key that they mention on the side.
func (s Source) Name(key string) string {
	if s.FromNamespace(key) {
		return "the namespace's " + key
	}
	return key
}

// Invalid returns the error for the value of an annotation, be it the pod's or
// the namespace's.
func (s Source) Invalid(key, detail string) *field.Error {
	return field.Invalid(s.Path(key), strict.Shorten(s.Text(key)), detail)
}

// UnusedInNone reports whether what a namespace says of the interception is
// without object, because the pod itself wants none.
func (r Request) UnusedInNone(key string) bool {
	return r.Mode == interception.ModeNone && r.Source.FromNamespace(key) && !r.Source.FromNamespace(InterceptionModeKey)
}
