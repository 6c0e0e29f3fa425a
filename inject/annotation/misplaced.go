package annotation

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/inject/strict"
)

// MisplacedKey is a key of a pod that stands in the metadata of the workload that
// makes the pod, where it has no effect.
type MisplacedKey struct {
	Key, Value string
	In         string // labels or annotations, where it stands
	Belongs    Place  // of the pod
}

// Misplaced returns the keys of a pod that a workload has in its own metadata and not
// in its template's, sorted. Only those of the template reach the pods.
func Misplaced(own, template *metav1.ObjectMeta) []MisplacedKey {
	var found []MisplacedKey
	for _, source := range []struct {
		in     string
		values map[string]string
	}{{"annotations", own.Annotations}, {"labels", own.Labels}} {
		for _, key := range slices.Sorted(maps.Keys(source.values)) {
			row, known := rowByKey(key)
			if !known || row.read == nil || has(template.Annotations, row.Key) || has(template.Labels, row.Key) {
				continue
			}
			for _, place := range slices.Backward(row.Places) {
				if slices.Contains(PodPlaces, place) {
					found = append(found, MisplacedKey{key, source.values[key], source.in, place})
					break
				}
			}
		}
	}
	return found
}

// has reports whether a map has a key, whatever its case.
func has(values map[string]string, key string) bool {
	for have := range values {
		if strings.EqualFold(have, key) {
			return true
		}
	}
	return false
}

// MisplacedWarnings returns a warning for each key, with the path of the metadata that
// it stands in and that of the template.
func MisplacedWarnings(keys []MisplacedKey, own, template *field.Path) []string {
	var w strict.Warnings
	for _, k := range keys {
		wanted := "annotations"
		if k.Belongs == PodLabel {
			wanted = "labels"
		}
		w.Add(fmt.Sprintf("%s: no effect here, only on pods; accepted: %s",
			own.Child(k.In).Key(strict.Shorten(k.Key)), template.Child("metadata", wanted)))
	}
	return w.Lines()
}

// Place puts the key into the metadata of a pod.
func (k MisplacedKey) Place(pod *metav1.ObjectMeta) {
	if k.Belongs == PodLabel {
		metav1.SetMetaDataLabel(pod, k.Key, k.Value)
	} else {
		metav1.SetMetaDataAnnotation(pod, k.Key, k.Value)
	}
}
