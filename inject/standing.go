package inject

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// Standing is how a pod that exists compares with one that were created now. Metrics
// have it as a label.
type Standing string

// The values of Standing.
const (
	StandingNone     Standing = ""         // it has no proxy and would get none, or is another's
	StandingCurrent  Standing = "current"  // a new one would be the same
	StandingMissing  Standing = "missing"  // it has no proxy, and a new one would
	StandingOutdated Standing = "outdated" // a new one would get the proxy with other settings
	StandingDenied   Standing = "denied"   // a new one would be denied
	StandingUnwanted Standing = "unwanted" // it has the proxy, and a new one would get none
)

// Standings returns all values of Standing but StandingNone.
func Standings() []Standing {
	return []Standing{StandingCurrent, StandingMissing, StandingOutdated, StandingDenied, StandingUnwanted}
}

// Stands compares a pod that exists with one that were created now, and returns the
// decision about that one. Asked reports whether API servers ask the webhook about
// the pod. The first line that applies counts:
//
//	finished, ending, or a mirror of a node's file  -> none
//	another revision's status                       -> none
//	no status: API servers would not ask            -> none
//	           has our container                    -> outdated
//	           now injected, now denied             -> missing, denied
//	           now nothing either                   -> none
//	has our status: now the same                    -> current
//	                now another, now denied, no more -> outdated, denied, unwanted
func (in *Injector) Stands(pod *corev1.Pod, ns annotation.Namespace, asked func() bool) (Standing, Result) {
	if Ended(pod) {
		return StandingNone, Result{}
	}
	status, has := podplan.ReadStatus(pod)
	switch {
	case has && status.Revision != in.cfg.Revision, !has && !asked():
		return StandingNone, Result{}
	case !has && podplan.HasContainers(pod):
		return StandingOutdated, Result{}
	}
	result := in.Inject(pod, ns)
	switch {
	case result.Reason == ReasonAlreadyInjected:
		return StandingCurrent, result
	case result.Denied():
		return StandingDenied, result
	case result.Inject && has:
		return StandingOutdated, result
	case result.Inject:
		return StandingMissing, result
	case has:
		return StandingUnwanted, result
	}
	return StandingNone, result
}

// Ended reports whether a pod has ended or is ending, or mirrors a node's file, so
// that nothing about it can be changed.
func Ended(pod *corev1.Pod) bool {
	_, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return mirror || pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}
