package check

import (
	"fmt"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/strict"
)

// pods reports which of an installation's pods differ from what they would be if
// they were created now. The first line that applies counts. "Asked about" are the
// pods that the webhooks' selectors match, which are at least those that the
// decision injects:
//
//	finished, ending, or a mirror of a node's file  -> nothing
//	another revision's status                       -> nothing
//	has our container, and no readable status       -> PodOutdated
//	has our status: now the same                    -> counted
//	                now another, now denied, no more -> PodOutdated, PodDenied, PodUnwanted
//	not asked about                                 -> nothing
//	no status:      now injected, now denied        -> PodNotInjected, PodDenied
//	                now nothing either              -> nothing
//
// If the configuration is not known, no pod is outdated.
func (r *report) pods(s Snapshot, in ownInjector, cfg settings) {
	judge := podChecker{report: r, ownInjector: in, cfg: cfg}
	namespaces := s.namespaces()
	well, before := 0, len(r.findings)
	for i := range s.Pods {
		pod := &s.Pods[i]
		ns, known := namespaces[pod.Namespace]
		if !known || beyondRepair(pod) {
			continue
		}
		if judge.pod(pod, ns) {
			well++
		}
	}
	switch {
	case well > 0 && !cfg.known:
		r.add(OK, Pods, in.object(), "with the proxy: %d", well)
	case well > 0:
		r.add(OK, Pods, in.object(), "up to date: %d", well)
	case len(r.findings) == before:
		r.add(OK, Pods, in.object(), "none has the proxy, and none should")
	}
}

// beyondRepair reports whether a restart could not correct a pod.
func beyondRepair(pod *corev1.Pod) bool {
	_, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return mirror || pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// podChecker checks an installation's pods.
type podChecker struct {
	*report
	ownInjector
	cfg settings
}

// pod checks one pod, and reports whether it has the proxy as it should.
func (j podChecker) pod(pod *corev1.Pod, ns annotation.Namespace) bool {
	status, has := podplan.ReadStatus(pod)
	switch {
	case has && status.Revision != j.cfg.Revision, !has && !j.selects(pod, ns):
		return false
	case !has && podplan.HasContainers(pod):
		j.addPod(Warn, PodOutdated, pod, "", "it was injected by another version of Shunt; "+j.replace(pod))
		return false
	}
	result := j.Inject(pod, ns)
	if result.Reason == inject.ReasonAlreadyInjected || result.Inject && has && !j.cfg.known {
		return true
	}
	j.compare(pod, has, result)
	return false
}

// compare reports how a pod with or without the proxy differs from what would
// become of it now.
func (j podChecker) compare(pod *corev1.Pod, has bool, result inject.Result) {
	add := func(level Level, kind Kind, format string, args ...any) {
		message := fmt.Sprintf(format, args...)
		j.addPod(level, kind, pod, message, message)
	}
	switch {
	case result.Denied() && has:
		add(Warn, PodDenied, "it has the proxy, and would be denied now: %s", joined(result.Decision))
	case result.Denied():
		add(Fail, PodDenied, "it has no proxy, and would be denied now: %s", joined(result.Decision))
	case result.Inject && has:
		add(Warn, PodOutdated, "%s; %s", difference(pod, result.Pod), j.replace(pod))
	case result.Inject:
		add(Fail, PodNotInjected, "it should have the proxy and has none; %s", j.replace(pod))
	case has:
		add(Warn, PodUnwanted, "it has the proxy, and would not get it now: %s: %s", result.Reason, result.Reason.Sentence())
	}
}

func joined(refused inject.Decision) string {
	return strings.Join(refused.Messages(), "; ")
}

// orphans reports pods that a revision injected that no longer exists.
func (r *report) orphans(s Snapshot, revisions sets.Set[string]) {
	for i := range s.Pods {
		pod := &s.Pods[i]
		if status, has := podplan.ReadStatus(pod); has && !beyondRepair(pod) && !revisions.Has(status.Revision) {
			message := fmt.Sprintf("it was injected by revision %q, which no webhook has", status.Revision)
			r.addPod(Warn, PodOutdated, pod, message, message)
		}
	}
}

// selects reports whether the selectors of any webhook match a pod.
func (in installation) selects(pod *corev1.Pod, ns annotation.Namespace) bool {
	inNamespace := labels.Set(ns.Labels)
	return slices.ContainsFunc(in.webhooks, func(w admissionregistrationv1.MutatingWebhook) bool {
		return matches(w.NamespaceSelector, inNamespace) && matches(w.ObjectSelector, pod.Labels)
	})
}

func matches(selector *metav1.LabelSelector, set labels.Set) bool {
	if selector == nil {
		return true // as API servers do
	}
	compiled, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && compiled.Matches(set)
}

// difference describes how a pod differs from what it would be now.
func difference(pod, now *corev1.Pod) string {
	changes := inject.Changes(pod, now)
	var differs []string
	for _, c := range changes[:min(len(changes), mostChanges)] {
		differs = append(differs, strict.Cut(config.Difference{Field: c.Setting, Old: c.Was, New: c.Now}.String(), strict.MaxDetail))
	}
	switch more := len(changes) - mostChanges; {
	case len(changes) == 0:
		return "it was changed since it was injected"
	case more > 0:
		return strings.Join(append(differs, strict.AndMore(more)), "; ")
	}
	return strings.Join(differs, "; ")
}

// mostChanges is how many settings a line names. shunt explain has all.
const mostChanges = 3
