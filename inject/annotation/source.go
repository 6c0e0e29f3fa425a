package annotation

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/strict"
)

// Place is where a key is read from.
type Place string

// The values of Place.
const (
	PodAnnotation       Place = "pod annotation"
	PodLabel            Place = "pod label"
	NamespaceAnnotation Place = "namespace annotation"
	NamespaceLabel      Place = "namespace label"
)

// Namespace is the part of a pod's namespace that the injection depends on.
type Namespace struct {
	Name        string
	Labels      map[string]string
	Annotations map[string]string
}

// PodPlaces are the places in the pod itself.
var PodPlaces = []Place{PodAnnotation, PodLabel}

// Paths maps each place to the field of the pod or its namespace that holds the
// keys.
var Paths = map[Place]*field.Path{
	PodAnnotation:       field.NewPath("metadata", "annotations"),
	PodLabel:            field.NewPath("metadata", "labels"),
	NamespaceAnnotation: field.NewPath(NamespaceField, "metadata", "annotations"),
	NamespaceLabel:      field.NewPath("metadata", "labels"),
}

// NamespaceField begins the path of a namespace's field in the errors of a pod.
const NamespaceField = "namespace"

// OfNamespace reports whether a path in Decision.Errors is a field of the namespace,
// not of the pod.
func OfNamespace(path string) bool { return strings.HasPrefix(path, NamespaceField+".") }

// Source holds the annotations from which a request was read: the pod's, and its
// namespace's for keys that the pod does not have.
type Source struct{ pod, namespace map[string]string }

func newSource(pod *corev1.Pod, ns Namespace) Source {
	return Source{pod: pod.Annotations, namespace: ns.Annotations}
}

// Place returns where a key's value came from; PodAnnotation if it is absent.
func (s Source) Place(key string) Place {
	if _, own := s.pod[key]; own {
		return PodAnnotation
	}
	if _, present := s.namespace[key]; present {
		return NamespaceAnnotation
	}
	return PodAnnotation
}

// FromNamespace reports whether a key's value comes from the namespace. Such a value
// was not written for this pod, just like the configuration. So it is adjusted in
// some cases in which the pod's own value is denied.
func (s Source) FromNamespace(key string) bool { return s.Place(key) == NamespaceAnnotation }

// overridden reports whether the value in the place is not read because the pod has
// the annotation, too.
func (s Source) overridden(key string, place Place) bool {
	_, own := s.pod[key]
	return own && place == NamespaceAnnotation
}

// Has reports whether the pod or its namespace has the annotation.
func (s Source) Has(key string) bool {
	_, own := s.pod[key]
	_, shared := s.namespace[key]
	return own || shared
}

// Text returns a key's value; empty if it is absent.
func (s Source) Text(key string) string {
	if s.FromNamespace(key) {
		return s.namespace[key]
	}
	return s.pod[key]
}

// Path returns the field that holds a key's value.
func (s Source) Path(key string) *field.Path { return Paths[s.Place(key)].Key(key) }

// Name returns the name of a key for messages about another key.
func (s Source) Name(key string) string {
	if s.FromNamespace(key) {
		return "the namespace's " + key
	}
	return key
}

// Invalid returns the error for the value of an annotation, the pod's or the
// namespace's.
func (s Source) Invalid(key, detail string) *field.Error {
	return field.Invalid(s.Path(key), strict.Shorten(s.Text(key)), detail)
}

// unusedInNone reports whether the namespace's setting has no effect because the pod
// itself sets the mode NONE.
func (r Request) unusedInNone(key string) bool {
	return r.Mode == interception.ModeNone && r.Source.FromNamespace(key) && !r.Source.FromNamespace(InterceptionModeKey)
}
