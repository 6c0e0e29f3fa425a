package manifest

import (
	"encoding/json"
	"maps"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/inject/annotation"
)

// Namespaces are the Namespaces of manifest files, by name. What they say of
// settings holds for their pods, as in a cluster; what they say of whether pods
// are injected does not, because whoever runs this asks for it.
type Namespaces map[string]annotation.Namespace

// Add takes the Namespaces of a document, those in Lists too. A document that
// cannot be read as one is left to those that say what is wrong with it.
func (n Namespaces) Add(doc Document) {
	if doc.empty {
		return
	}
	if text, err := doc.JSON(); err == nil {
		n.add(text)
	}
}

func (n Namespaces) add(text []byte) {
	var object struct {
		corev1.Namespace

		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(text, &object); err != nil || object.APIVersion != "v1" {
		return
	}
	switch object.Kind {
	case "Namespace":
		n[object.Name] = annotation.Namespace{Name: object.Name, Labels: object.Labels, Annotations: object.Annotations}
	case listSuffix:
		for _, item := range object.Items {
			n.add(item)
		}
	}
}

// asking returns a namespace that asks for the injector of a revision in all
// its pods, and is else as the files have it.
func (n Namespaces) asking(name, revision string) annotation.Namespace {
	ns := n[name]
	ns.Name = name
	ns.Labels = maps.Clone(ns.Labels)
	if ns.Labels == nil {
		ns.Labels = map[string]string{}
	}
	delete(ns.Labels, annotation.NamespaceInjectionKey)
	ns.Labels[annotation.RevisionKey] = revision
	return ns
}
