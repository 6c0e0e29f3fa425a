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
// they were created now, by their standing. "Asked about" are the pods that the
// webhooks' selectors match, which are at least those that the decision injects. If
// the configuration is not known, no pod is outdated.
func (r *report) pods(s Snapshot, in ownInjector, cfg settings) {
	judge := podChecker{report: r, ownInjector: in, cfg: cfg}
	namespaces := s.namespaces()
	well, before := 0, len(r.findings)
	for i := range s.Pods {
		pod := &s.Pods[i]
		ns, known := namespaces[pod.Namespace]
		if !known || inject.Ended(pod) {
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

// podChecker checks an installation's pods.
type podChecker struct {
	*report
	ownInjector
	cfg settings
}

// pod checks one pod, and reports whether it has the proxy as it should.
func (j podChecker) pod(pod *corev1.Pod, ns annotation.Namespace) bool {
	add := func(level Level, kind Kind, format string, args ...any) {
		message := fmt.Sprintf(format, args...)
		j.addPod(level, kind, pod, message, message)
	}
	standing, result := j.Stands(pod, ns, func() bool { return j.selects(pod, ns) })
	_, has := podplan.ReadStatus(pod)
	switch {
	case standing == inject.StandingOutdated && !has:
		add(Warn, PodOutdated, "it was injected by another version of Shunt; %s", j.replace(pod))
	case standing == inject.StandingCurrent, standing == inject.StandingOutdated && !j.cfg.known:
		return true
	case standing == inject.StandingDenied && has:
		add(Warn, PodDenied, "it has the proxy, and would be denied now: %s", joined(result.Decision))
	case standing == inject.StandingDenied:
		add(Fail, PodDenied, "it has no proxy, and would be denied now: %s", joined(result.Decision))
	case standing == inject.StandingOutdated:
		add(Warn, PodOutdated, "%s; %s", difference(pod, result.Pod), j.replace(pod))
	case standing == inject.StandingMissing:
		add(Fail, PodNotInjected, "it should have the proxy and has none; %s", j.replace(pod))
	case standing == inject.StandingUnwanted:
		add(Warn, PodUnwanted, "it has the proxy, and would not get it now: %s: %s", result.Reason, result.Reason.Sentence())
	}
	return false
}

func joined(refused inject.Decision) string {
	return strings.Join(refused.Messages(), "; ")
}

// orphans reports pods that a revision injected that no longer exists.
func (r *report) orphans(s Snapshot, revisions sets.Set[string]) {
	for i := range s.Pods {
		pod := &s.Pods[i]
		if status, has := podplan.ReadStatus(pod); has && !inject.Ended(pod) && !revisions.Has(status.Revision) {
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
