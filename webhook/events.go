package webhook

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"
)

// What Events say was done, and why where no Reason of a request does.
const (
	actionInject   = "Inject"
	actionReload   = "ReloadConfiguration"
	eventBadConfig = "BadConfiguration"
)

const (
	// noteLength is the most that an API server takes of an Event's note.
	noteLength = 1024
	// A rollout that is refused meets the same few owners again and again,
	// and client-go counts those as one Event. These bound what other owners
	// may cost the API server; the log has every request.
	eventsPerSecond = 5
	eventsBurst     = 50
	eventsWaiting   = 16
)

// reporter names the webhook in its Events.
const reporter = "shunt.dev/webhook"

// announcer writes Events, which are telemetry: best effort, dropped where
// there are too many, and never waited for. A nil announcer writes none.
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

// warn returns at once, even where the recorder does not.
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

// reference is what an Event about a pod's owner is filed under. An Event is
// in its object's namespace, and a pod's writer can put anything for its
// owner: only what is in the pod's own namespace gets one, so no Node.
func reference(namespace string, owner *metav1.OwnerReference) *corev1.ObjectReference {
	if owner == nil || namespace == "" || owner.APIVersion == "v1" && owner.Kind == "Node" {
		return nil
	}
	if max(len(owner.APIVersion), len(owner.Kind), len(owner.Name), len(owner.UID)) > longestName {
		return nil // nor what no API server has
	}
	return &corev1.ObjectReference{
		APIVersion: owner.APIVersion, Kind: owner.Kind, Namespace: namespace, Name: owner.Name, UID: owner.UID,
	}
}
