package manifest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
)

// namespaceNotes warn of labels of the document's Namespaces that a webhook does not
// understand.
func (d *Document) namespaceNotes() []string {
	found := Namespaces{}
	found.Add(*d)
	var notes []string
	for _, ns := range found {
		for _, warning := range inject.NamespaceWarnings(ns) {
			notes = append(notes, fmt.Sprintf("%s: document %d: Namespace %s: warning: %s", d.File, d.Number, ns.Name, warning))
		}
	}
	slices.Sort(notes)
	return notes
}

// misplaced warns of keys of pods in the metadata of the objects around the template:
// the workload's own and, of a CronJob, its jobTemplate's. The template of a patch is
// elsewhere.
func (w Workload) misplaced() []string {
	if w.bare() {
		return nil
	}
	template, keys := metadata(w.Template), w.path[w.at:]
	var warnings []string
	for i := range keys {
		own := metadata(descend(w.object, keys[:i]))
		warnings = append(warnings, annotation.MisplacedWarnings(
			annotation.Misplaced(own, template), fieldPath(keys[:i]).Child("metadata"), fieldPath(keys))...)
	}
	for i := range warnings {
		warnings[i] = "warning: " + warnings[i]
	}
	return warnings
}

// placed makes the path with which a warning about a pod may begin one of the object.
func (w Workload) placed(warning string) string {
	if strings.HasPrefix(warning, "metadata.") || strings.HasPrefix(warning, "spec.") {
		return w.field(warning)
	}
	return warning
}

func fieldPath(keys []string) *field.Path {
	var path *field.Path
	for _, key := range keys {
		path = path.Child(key)
	}
	return path
}

// metadata reads the keys of an object's labels and annotations, whatever the type of
// their values.
func metadata(object []byte) *metav1.ObjectMeta {
	var read struct {
		Metadata struct {
			Labels      map[string]json.RawMessage `json:"labels"`
			Annotations map[string]json.RawMessage `json:"annotations"`
		} `json:"metadata"`
	}
	// What is not as it should be is told by whoever reads the object as a pod.
	_ = json.Unmarshal(object, &read)
	keys := func(of map[string]json.RawMessage) map[string]string {
		all := make(map[string]string, len(of))
		for key := range of {
			all[key] = ""
		}
		return all
	}
	return &metav1.ObjectMeta{Labels: keys(read.Metadata.Labels), Annotations: keys(read.Metadata.Annotations)}
}
