package inject

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/inject/annotation"
)

// forbidden finds labels and annotations of a pod that the configuration
// forbids, if the pod would be injected without them. Those of a namespace are
// allowed. inject: "true" is allowed too: it only asks for the proxy.
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
