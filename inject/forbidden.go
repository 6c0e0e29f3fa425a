package inject

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/inject/annotation"
)

// forbidden finds what a pod says though the configuration keeps it from pods,
// where the pod would be injected if it did not say that. What a namespace says
// is its owner's, and holds. A pod that asks for the proxy takes nothing upon
// itself that the configuration could mean to keep from it.
func (in *Injector) forbidden(pod *corev1.Pod, ns annotation.Namespace) field.ErrorList {
	var errs field.ErrorList
	without := *pod
	for _, key := range in.cfg.ForbiddenAnnotations {
		row := annotation.RowsByKey[strings.ToLower(key)]
		for _, place := range annotation.PodPlaces {
			values := without.Annotations
			if place == annotation.PodLabel {
				values = without.Labels
			}
			text, present := values[key]
			if !present || !slices.Contains(row.Places, place) || key == annotation.InjectKey && text == "true" {
				continue
			}
			accepted := "none"
			if slices.Contains(row.Places, annotation.NamespaceAnnotation) {
				accepted = "none, or as an annotation of the namespace"
			} else if key == annotation.InjectKey {
				accepted = `none, or "true"`
			}
			errs = append(errs, field.Forbidden(annotation.Paths[place].Key(key),
				"forbiddenAnnotations of the injector's configuration keeps it from pods; accepted: "+accepted))
			values = maps.Clone(values)
			delete(values, key)
			if place == annotation.PodLabel {
				without.Labels = values
			} else {
				without.Annotations = values
			}
		}
	}
	if len(errs) == 0 {
		return nil
	}
	if req, _ := annotation.Read(&without, ns); in.unwanted(&without, req) != "" {
		return nil
	}
	return errs
}
