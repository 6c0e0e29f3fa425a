package check

import (
	"fmt"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
)

// shipped are the settings of each webhook in config/webhook.
var shipped = struct {
	failure      admissionregistrationv1.FailurePolicyType
	reinvocation admissionregistrationv1.ReinvocationPolicyType
	match        admissionregistrationv1.MatchPolicyType
	sideEffects  admissionregistrationv1.SideEffectClass
	timeout      int32
}{
	admissionregistrationv1.Fail, admissionregistrationv1.IfNeededReinvocationPolicy, admissionregistrationv1.Equivalent,
	admissionregistrationv1.SideEffectClassNone, 5,
}

// exempt are the namespaces whose pods must start while nobody answers.
var exempt = []string{metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease}

// registration reports what the API server knows of the webhooks.
func (r *report) registration(in installation) {
	names := make([]string, len(in.webhooks))
	for i, w := range in.webhooks {
		names[i] = w.Name
		if !slices.ContainsFunc(w.Rules, createsPods) {
			r.add(Fail, Registration, in.object(), "%s: no rule matches CREATE of v1 pods; accepted: those of config/webhook", w.Name)
		}
	}
	revision := ""
	if revisions := in.revisions(); len(revisions) > 0 {
		revision = "revision " + strings.Join(revisions, ", ") + ": "
	}
	r.add(OK, Registration, in.object(), "%s%s", revision, strings.Join(names, ", "))
	r.settings(in)
	r.exemptions(in)
}

func createsPods(rule admissionregistrationv1.RuleWithOperations) bool {
	has := func(values []string, value string) bool {
		return slices.Contains(values, value) || slices.Contains(values, "*")
	}
	return has(rule.APIGroups, "") && has(rule.APIVersions, "v1") && has(rule.Resources, "pods") &&
		(slices.Contains(rule.Operations, admissionregistrationv1.Create) ||
			slices.Contains(rule.Operations, admissionregistrationv1.OperationAll))
}

// settings compares the settings of each webhook with those that ship.
func (r *report) settings(in installation) {
	asShipped := true
	for _, webhook := range in.webhooks {
		for _, line := range []struct {
			name, value, shipped, consequence string
		}{
			{
				"failurePolicy", text(webhook.FailurePolicy), string(shipped.failure),
				"pods start without the proxy while the webhook is down",
			},
			{
				"reinvocationPolicy", text(webhook.ReinvocationPolicy), string(shipped.reinvocation),
				"changes by later webhooks are not corrected",
			},
			{"matchPolicy", text(webhook.MatchPolicy), string(shipped.match), "pods of other API versions are not sent to the webhook"},
			{"sideEffects", text(webhook.SideEffects), string(shipped.sideEffects), "the webhook has none"},
			{
				"timeoutSeconds", fmt.Sprint(deref(webhook.TimeoutSeconds)), fmt.Sprint(shipped.timeout),
				"the time that a pod waits for a webhook that does not answer",
			},
		} {
			if line.value != line.shipped {
				asShipped = false
				r.add(Warn, Settings, in.object(), "%s: %s is %s, shipped as %s: %s",
					webhook.Name, line.name, line.value, line.shipped, line.consequence)
			}
		}
	}
	if asShipped {
		r.add(OK, Settings, in.object(), "failurePolicy %s, reinvocationPolicy %s, timeoutSeconds %d, as shipped",
			shipped.failure, shipped.reinvocation, shipped.timeout)
	}
}

func text[T ~string](value *T) string {
	if value == nil {
		return "not set"
	}
	return string(*value)
}

// exemptions reports which namespaces cannot start while nobody answers, and
// should.
func (r *report) exemptions(in installation) {
	wanted := slices.Clone(exempt)
	if reference := in.serviceReference(); reference != nil {
		wanted = append(wanted, reference.Namespace)
	}
	var missing []string
	for _, name := range wanted {
		for _, w := range in.webhooks {
			if !exempts(w.NamespaceSelector, name) {
				missing = append(missing, name)
				break
			}
		}
	}
	if len(missing) > 0 {
		r.add(Warn, Exemptions, in.object(), "not exempt: pods that opt in there cannot start while the webhook is down: %s",
			strings.Join(missing, ", "))
		return
	}
	r.add(OK, Exemptions, in.object(), "%s", strings.Join(wanted, ", "))
}

// exempts reports whether a selector never matches a namespace, whatever its other
// labels.
func exempts(selector *metav1.LabelSelector, namespace string) bool {
	return selector != nil && slices.ContainsFunc(selector.MatchExpressions, func(e metav1.LabelSelectorRequirement) bool {
		return e.Key == corev1.LabelMetadataName &&
			(e.Operator == metav1.LabelSelectorOpNotIn && slices.Contains(e.Values, namespace) ||
				e.Operator == metav1.LabelSelectorOpIn && !slices.Contains(e.Values, namespace))
	})
}

// exempts reports whether the installation has nothing to do with a namespace.
func (in installation) exempts(namespace string) bool {
	return !slices.ContainsFunc(in.webhooks, func(w admissionregistrationv1.MutatingWebhook) bool {
		return !exempts(w.NamespaceSelector, namespace)
	})
}

// selectedRevisions returns the revisions that a selector matches.
func selectedRevisions(selector *metav1.LabelSelector) []string {
	if selector == nil {
		return nil
	}
	var names []string
	for key, value := range selector.MatchLabels {
		names = append(names, revisionsOf(key, value)...)
	}
	for _, e := range selector.MatchExpressions {
		if e.Operator == metav1.LabelSelectorOpIn {
			names = append(names, revisionsOf(e.Key, e.Values...)...)
		}
	}
	return names
}

func revisionsOf(key string, values ...string) []string {
	switch {
	case key == annotation.RevisionKey:
		return values
	case key == annotation.NamespaceInjectionKey && slices.Contains(values, annotation.NamespaceEnabled):
		return []string{config.DefaultRevision}
	default:
		return nil
	}
}
