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

// Selectors choose pods by their labels: those of a configuration, compiled.
type Selectors []labels.Selector

// CompileSelectors compiles selectors that Validate has passed.
func CompileSelectors(of []metav1.LabelSelector) Selectors {
	var all Selectors
	for i := range of {
		selector, err := metav1.LabelSelectorAsSelector(&of[i])
		if err != nil {
			panic("selector from a valid configuration: " + err.Error())
		}
		all = append(all, selector)
	}
	return all
}

// Match reports whether any of them chooses the pod.
func (s Selectors) Match(pod *corev1.Pod) bool {
	return slices.ContainsFunc(s, func(one labels.Selector) bool { return one.Matches(labels.Set(pod.Labels)) })
}

var selectorOperators = []metav1.LabelSelectorOperator{
	metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist,
}

// checkSelectors refuses an empty selector, too: to Kubernetes it means every
// pod and to Istio none, and whoever writes it may mean either.
func checkSelectors(name string, all []metav1.LabelSelector) field.ErrorList {
	var errs field.ErrorList
	for i := range all {
		path := field.NewPath(name).Index(i)
		if len(all[i].MatchLabels)+len(all[i].MatchExpressions) == 0 {
			errs = append(errs, field.Required(path, "accepted: matchLabels, matchExpressions or both"))
		}
		wrong := validation.ValidateLabelSelector(&all[i], validation.LabelSelectorValidationOptions{
			AllowUnknownOperatorInRequirement: true, // for a word that says which there are
		}, path)
		// It goes through matchLabels as they come, in another order each time.
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
