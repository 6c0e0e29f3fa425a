package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Selectors are a configuration's label selectors, compiled.
type Selectors []labels.Selector

// CompileSelectors compiles the selectors of a valid configuration.
func CompileSelectors(selectors []metav1.LabelSelector) Selectors {
	var all Selectors
	for i := range selectors {
		selector, err := metav1.LabelSelectorAsSelector(&selectors[i])
		if err != nil {
			panic("selector from a valid configuration: " + err.Error())
		}
		all = append(all, selector)
	}
	return all
}

// Match reports whether any of them selects the pod.
func (s Selectors) Match(pod *corev1.Pod) bool { return s.Index(pod) >= 0 }

// Index returns which of them selects the pod, the first of several; -1 if none.
func (s Selectors) Index(pod *corev1.Pod) int {
	return slices.IndexFunc(s, func(one labels.Selector) bool { return one.Matches(labels.Set(pod.Labels)) })
}

var selectorOperators = []metav1.LabelSelectorOperator{
	metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist,
}

// checkSelectors returns the errors of selectors. An empty one is an error, too: in
// Kubernetes it selects every pod and in Istio none, so it is ambiguous.
func checkSelectors(name string, all []metav1.LabelSelector) field.ErrorList {
	var errs field.ErrorList
	for i := range all {
		path := field.NewPath(name).Index(i)
		if len(all[i].MatchLabels)+len(all[i].MatchExpressions) == 0 {
			errs = append(errs, field.Required(path, "accepted: matchLabels, matchExpressions or both"))
		}
		wrong := validation.ValidateLabelSelector(&all[i], validation.LabelSelectorValidationOptions{
			AllowUnknownOperatorInRequirement: true, // checked below, with the accepted ones
		}, path)
		// The errors of matchLabels come in the random order of a map.
		slices.SortStableFunc(wrong, func(a, b *field.Error) int {
			return cmp.Or(strings.Compare(a.Field, b.Field), strings.Compare(fmt.Sprint(a.BadValue), fmt.Sprint(b.BadValue)))
		})
		errs = append(errs, wrong...)
		for j, expression := range all[i].MatchExpressions {
			if !slices.Contains(selectorOperators, expression.Operator) {
				at := path.Child("matchExpressions").Index(j).Child("operator")
				errs = append(errs, field.NotSupported(at, expression.Operator, selectorOperators))
			}
		}
	}
	return errs
}
