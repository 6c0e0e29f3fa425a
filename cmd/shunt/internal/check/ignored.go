package check

import (
	"fmt"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
)

// ownInjector decides as the webhook of an installation does.
type ownInjector struct {
	installation
	*inject.Injector
}

// has reports whether the webhook is asked about a pod and does not skip it.
func (o ownInjector) has(pod *corev1.Pod, ns annotation.Namespace) bool {
	return o.selects(pod, ns) && o.Wants(pod, ns)
}

// namespaces returns the namespaces that were read, by name.
func (s Snapshot) namespaces() map[string]annotation.Namespace {
	all := make(map[string]annotation.Namespace, len(s.Namespaces))
	for _, ns := range s.Namespaces {
		all[ns.Name] = annotation.Namespace{Name: ns.Name, Labels: ns.Labels, Annotations: ns.Annotations}
	}
	return all
}

// ignored reports labels and annotations that have no effect, once for the object
// that somebody wrote:
//
//	istio-injection, neither enabled nor disabled        FAIL, or WARN if pods get the proxy anyway
//	a revision that no webhook has                       FAIL
//	a key unknown, if the pods are Shunt's               WARN
//	a key of a pod, in the workload's own metadata, if
//	  the pods are Shunt's, or would be with it          WARN
//
// Istio has the same labels and more keys. So what another injector's webhook has is
// left alone, as are pods that are not Shunt's.
type ignored struct {
	*report
	injectors  []ownInjector
	namespaces map[string]annotation.Namespace
	// served are the revisions that webhooks have; nil if not all are known.
	served sets.Set[string]
	// ours are the namespaces with pods that are Shunt's.
	ours sets.Set[string]
}

func (r *report) ignored(s Snapshot, injectors []ownInjector, served sets.Set[string]) {
	check := ignored{r, injectors, s.namespaces(), served, sets.Set[string]{}}
	for i := range s.Workloads {
		if w := &s.Workloads[i]; w.Template != nil && r.top(w.Namespace, w.Kind, w.Name, nil) == w.object() {
			check.workload(w)
		}
	}
	seen := sets.Set[string]{}
	for i := range s.Pods {
		pod := &s.Pods[i]
		if owner := r.of(pod); r.workloads[owner] == nil && !seen.Has(owner) && !inject.Ended(pod) {
			seen.Insert(owner)
			check.pod(reference("Pod", pod.Namespace, pod.Name), pod, nil)
		}
	}
	for i := range s.Namespaces {
		if ns := &s.Namespaces[i]; ns.DeletionTimestamp == nil {
			check.namespace(check.namespaces[ns.Name])
		}
	}
}

// has reports whether a pod is Shunt's.
func (c ignored) has(pod *corev1.Pod) bool {
	ns, known := c.namespaces[pod.Namespace]
	return known && slices.ContainsFunc(c.injectors, func(o ownInjector) bool { return o.has(pod, ns) })
}

func (c ignored) workload(w *Workload) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Labels: w.Template.Labels, Annotations: w.Template.Annotations},
		Spec:       corev1.PodSpec{HostNetwork: w.HostNetwork},
	}
	has := c.pod(w.object(), pod, w.Template.Path)
	for _, own := range w.Own {
		misplaced := annotation.Misplaced(&metav1.ObjectMeta{Labels: own.Labels, Annotations: own.Annotations}, &pod.ObjectMeta)
		if len(misplaced) == 0 {
			continue
		}
		meant := pod.DeepCopy()
		for _, key := range misplaced {
			key.Place(&meant.ObjectMeta)
		}
		if has || c.has(meant) {
			for _, warning := range annotation.MisplacedWarnings(misplaced, own.Path.Child("metadata"), w.Template.Path) {
				c.add(Warn, Ignored, w.object(), "%s", warning)
			}
		}
	}
}

// pod reports the keys of a pod, or of the template at a path of the object, and
// returns whether it is Shunt's.
func (c ignored) pod(object string, pod *corev1.Pod, path *field.Path) bool {
	if !c.has(pod) {
		ns, known := c.namespaces[pod.Namespace]
		if asked := revisionFor(pod, ns); known && revisionFor(&corev1.Pod{}, ns) == "" && c.unserved(asked) {
			key := annotation.InjectKey
			if pod.Labels[annotation.RevisionKey] != "" {
				key = annotation.RevisionKey
			}
			c.inVain(object, key, asked)
		}
		return false
	}
	c.ours.Insert(pod.Namespace)
	for _, warning := range annotation.TemplateWarnings(&pod.ObjectMeta, path) {
		c.add(Warn, Ignored, object, "%s", warning)
	}
	return true
}

func (c ignored) namespace(ns annotation.Namespace) {
	object, pod := "Namespace/"+ns.Name, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name}}
	has := c.has(pod)
	if has || c.ours.Has(ns.Name) {
		for _, warning := range annotation.NamespaceKeyWarnings(ns) {
			c.add(Warn, Ignored, object, "%s", warning)
		}
	}
	if !slices.ContainsFunc(c.injectors, func(o ownInjector) bool { return !o.exempts(ns.Name) }) {
		return
	}
	key := annotation.NamespaceInjectionKey
	value, labelled := ns.Labels[key]
	if labelled && value != annotation.NamespaceEnabled && value != annotation.NamespaceDisabled {
		level := Fail
		if has {
			level = Warn
		}
		c.add(level, Ignored, object, "%v", field.Invalid(field.NewPath("metadata", "labels").Key(key), value,
			fmt.Sprintf("it counts as absent; accepted: %s, %s", annotation.NamespaceEnabled, annotation.NamespaceDisabled)))
	}
	if asked := revisionFor(pod, ns); !has && c.unserved(asked) {
		if value != annotation.NamespaceEnabled {
			key = annotation.RevisionKey
		}
		c.inVain(object, key, asked)
	}
}

// revisionFor returns the revision that a pod or its namespace asks for; empty if
// none does. The truth table is inject's.
func revisionFor(pod *corev1.Pod, ns annotation.Namespace) string {
	req, _ := annotation.Read(pod, ns)
	switch {
	case pod.Spec.HostNetwork, !ptr.Deref(req.PodInject, true), !ptr.Deref(req.NamespaceInject, true):
		return ""
	case ptr.Deref(req.NamespaceInject, false), req.Revision == "" && ptr.Deref(req.PodInject, false):
		return config.DefaultRevision
	default:
		return req.Revision
	}
}

func (c ignored) unserved(revision string) bool {
	return revision != "" && c.served != nil && !c.served.Has(revision) && !c.served.Has(anyRevision)
}

// inVain reports a key that asks for a revision that no webhook has.
func (c ignored) inVain(object, key, revision string) {
	c.add(Fail, Ignored, object, "%s: no webhook has the revision %s, so that no pod gets the proxy; accepted: %s",
		key, revision, strings.Join(sets.List(c.served), ", "))
}

// anyRevision stands for a webhook that takes any revision.
const anyRevision = "*"

// servedRevisions returns the revisions that the webhooks for new pods have, also
// those that are not Shunt's.
func servedRevisions(configurations []admissionregistrationv1.MutatingWebhookConfiguration) sets.Set[string] {
	served := sets.Set[string]{}
	for _, configuration := range configurations {
		for _, w := range configuration.Webhooks {
			if !slices.ContainsFunc(w.Rules, createsPods) {
				continue
			}
			for _, selector := range []*metav1.LabelSelector{w.NamespaceSelector, w.ObjectSelector} {
				served.Insert(selectedRevisions(selector)...)
				if selector != nil && slices.ContainsFunc(selector.MatchExpressions, func(e metav1.LabelSelectorRequirement) bool {
					return e.Key == annotation.RevisionKey && e.Operator == metav1.LabelSelectorOpExists
				}) {
					served.Insert(anyRevision)
				}
			}
		}
	}
	return served
}
