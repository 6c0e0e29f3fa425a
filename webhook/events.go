package webhook

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"
)

// The action of an Event, and its reason if no request gives one.
const (
	actionInject   = "Inject"
	actionReload   = "ReloadConfiguration"
	eventBadConfig = "BadConfiguration"
)

const (
	// noteLength is the longest note that an API server accepts.
	noteLength = 1024
	// Limits of Events. A rollout whose pods are denied meets the same few owners
	// again and again, and client-go counts those as one Event. The limits bound
	// what other owners can cost the API server; the log has every request.
	eventsPerSecond = 5
	eventsBurst     = 50
	eventsWaiting   = 16
)

// reporter is the webhook's name in its Events.
const reporter = "shunt.dev/webhook"

// announcer writes Events. They are best effort: dropped if there are too many, and
// never waited for. A nil announcer writes none.
type announcer struct {
	recorder events.EventRecorder
	limit    flowcontrol.PassiveRateLimiter
	waiting  chan struct{}
}

func newAnnouncer(recorder events.EventRecorder) *announcer {
	return &announcer{
		recorder: recorder,
		limit:    flowcontrol.NewTokenBucketPassiveRateLimiter(eventsPerSecond, eventsBurst),
		waiting:  make(chan struct{}, eventsWaiting),
	}
}

// warn writes a warning and returns at once, even if the recorder does not.
func (a *announcer) warn(regarding *corev1.ObjectReference, reason, action, note string) {
	if a == nil || !a.limit.TryAccept() {
		return
	}
	select {
	case a.waiting <- struct{}{}:
	default:
		return
	}
	go func() {
		defer func() { <-a.waiting }()
		a.recorder.Eventf(regarding, nil, corev1.EventTypeWarning, reason, action, "%s", clip(note, noteLength))
	}()
}

// reference returns the object of an Event about a pod's owner. An Event is in its
// object's namespace, and whoever writes a pod can name any owner. So only an owner
// in the pod's own namespace gets an Event, and no Node does.
func reference(namespace string, owner *metav1.OwnerReference) *corev1.ObjectReference {
	if owner == nil || namespace == "" || owner.APIVersion == "v1" && owner.Kind == "Node" {
		return nil
	}
	if max(len(owner.APIVersion), len(owner.Kind), len(owner.Name), len(owner.UID)) > longestName {
		return nil // no API server has such names
	}
	return &corev1.ObjectReference{
		APIVersion: owner.APIVersion, Kind: owner.Kind, Namespace: namespace, Name: owner.Name, UID: owner.UID,
	}
}
