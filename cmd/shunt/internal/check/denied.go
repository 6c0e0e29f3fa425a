package check

import (
	"maps"
	"regexp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/strict"
)

// Events that tell of pods that are not created: those of Kubernetes' controllers have
// the reason, those of the webhook the reporter.
const (
	EventFailedCreate = "FailedCreate"
	EventReporter     = "shunt.dev/webhook"
)

// byUs matches what an API server says when a webhook of Shunt's denied a pod, or did
// not answer.
var byUs = regexp.MustCompile(`webhook "[^"]*\.shunt\.dev"`)

// denial is why no pod of a workload is created.
type denial struct {
	message string
	at      time.Time
}

// denied reports workloads whose pods the API server does not create because of
// Shunt's webhooks. What says so depends on the kind:
//
//	Deployment, ReplicaSet, ReplicationController   a condition, which the next pod takes away
//	StatefulSet, DaemonSet, Job                     an Event, if pods are missing
//	any other                                       an Event of the webhook's
//
// An Event stays for an hour. It counts if no pod was created since.
func (r *report) denied(s Snapshot) {
	found := map[string]denial{} // by the object that somebody wrote
	for _, w := range s.Workloads {
		if byUs.MatchString(w.Failure) {
			found[r.top(w.Namespace, w.Kind, w.Name, nil)] = denial{message: w.Failure}
		}
	}
	newest := r.newestPods(s.Pods)
	for i := range s.Events {
		event := &s.Events[i]
		about := &event.InvolvedObject
		denies := event.ReportingController == EventReporter && inject.Reason(event.Reason).Denies()
		if !denies && !byUs.MatchString(event.Message) || !r.counts(s, event) {
			continue
		}
		object := r.top(about.Namespace, about.Kind, about.Name, nil)
		at := lastSeen(event)
		if before, known := found[object]; newest[object].After(at) || known && !at.After(before.at) {
			continue
		}
		found[object] = denial{event.Message, at}
	}
	for _, object := range slices.Sorted(maps.Keys(found)) {
		r.add(Fail, WorkloadDenied, object, "its pods are not created: %s", strict.Cut(found[object].message, 2*longestMessage))
	}
}

// counts reports whether an Event is about a workload that still has too few pods,
// as far as that is known.
func (r *report) counts(s Snapshot, event *corev1.Event) bool {
	about := &event.InvolvedObject
	known := r.workloads[reference(about.Kind, about.Namespace, about.Name)]
	unread := s.cannotRead(resourceOf[about.Kind])
	switch about.Kind {
	case "Pod": // of the webhook, about its configuration
		return false
	case kindStatefulSet, kindDaemonSet, kindJob:
		return unread || known != nil && known.UID == about.UID && known.Short
	case kindDeployment, kindReplication:
		return unread
	case kindReplicaSet:
		if known == nil || unread {
			return unread
		}
		hasCondition := known.Template != nil ||
			known.Controller != nil && known.Controller.Kind == kindDeployment && !s.cannotRead(resourceDeployments)
		return known.UID == about.UID && !hasCondition
	default:
		return true
	}
}

// newestPods returns when the newest pod was created of what somebody wrote.
func (r *report) newestPods(pods []corev1.Pod) map[string]time.Time {
	newest := map[string]time.Time{}
	for i := range pods {
		owner, created := r.of(&pods[i]), pods[i].CreationTimestamp.Time
		if created.After(newest[owner]) {
			newest[owner] = created
		}
	}
	return newest
}

// lastSeen returns when an Event was last counted.
func lastSeen(event *corev1.Event) time.Time {
	times := []time.Time{event.LastTimestamp.Time, event.EventTime.Time, event.FirstTimestamp.Time}
	if event.Series != nil {
		times = append(times, event.Series.LastObservedTime.Time)
	}
	return slices.MaxFunc(times, time.Time.Compare)
}
