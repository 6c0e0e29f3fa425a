package annotation

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/inject/strict"
)

// ValidateForbidden returns an error for each forbidden key that pods cannot set
// anyway, and for each duplicate.
func ValidateForbidden(path *field.Path, keys []string) field.ErrorList {
	var accepted []string
	for _, row := range table {
		if row.settableByPod() {
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
