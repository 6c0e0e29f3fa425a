package inject

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/inject/strict"
)

// podPlaces are the places of a pod in which keys stand.
var podPlaces = []Place{PodAnnotation, PodLabel}

// ofPods reports whether a pod can set a row's key.
func (a Annotation) ofPods() bool {
	return a.read != nil && slices.ContainsFunc(a.Places, func(place Place) bool { return slices.Contains(podPlaces, place) })
}

// checkForbidden holds that the keys which a configuration keeps from pods are
// ones that pods could set.
func checkForbidden(path *field.Path, keys []string) field.ErrorList {
	var accepted []string
	for _, row := range annotations {
		if row.ofPods() {
			accepted = append(accepted, row.Key)
		}
	}
	slices.Sort(accepted)
	var errs field.ErrorList
	for i, key := range keys {
		switch {
		case !slices.Contains(accepted, key):
			detail := "unknown key of pods"
			if near := nearest(key); slices.Contains(accepted, near) {
				detail += ", did you mean " + near + "?"
			}
			errs = append(errs, field.Invalid(path.Index(i), strict.Shorten(key), detail+"; accepted: "+strings.Join(accepted, ", ")))
		case slices.Contains(keys[:i], key):
			errs = append(errs, field.Duplicate(path.Index(i), key))
		}
	}
	return errs
}

// forbidden finds what a pod says though the configuration keeps it from pods,
// where the pod would be injected if it did not say that. What a namespace says
// is its owner's, and holds. A pod that asks for the proxy takes nothing upon
// itself that the configuration could mean to keep from it.
func (in *Injector) forbidden(pod *corev1.Pod, ns Namespace) field.ErrorList {
	var errs field.ErrorList
	without := *pod
	for _, key := range in.cfg.ForbiddenAnnotations {
		row := rowsByKey[strings.ToLower(key)]
		for _, place := range podPlaces {
			values := map[Place]map[string]string{PodAnnotation: without.Annotations, PodLabel: without.Labels}[place]
			text, present := values[key]
			if !present || !slices.Contains(row.Places, place) || key == InjectKey && text == "true" {
				continue
			}
			accepted := "none"
			if slices.Contains(row.Places, NamespaceAnnotation) {
				accepted = "none, or as an annotation of the namespace"
			} else if key == InjectKey {
				accepted = `none, or "true"`
			}
			errs = append(errs, field.Forbidden(paths[place].Key(key),
				"forbiddenAnnotations of the injector's configuration keeps it from pods; accepted: "+accepted))
			values = maps.Clone(values)
			delete(values, key)
			if place == PodLabel {
				without.Labels = values
			} else {
				without.Annotations = values
			}
		}
	}
	if len(errs) == 0 {
		return nil
	}
	if req, _ := readRequest(&without, ns); in.unwanted(&without, req) != "" {
		return nil
	}
	return errs
}
