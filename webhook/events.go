package webhook

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"
)

// The action of an Event, and its reason if the answer to a request gives none.
const (
	actionInject   = "Inject"
	actionReload   = "ReloadConfiguration"
	eventBadConfig = "BadConfiguration"
	// The pod is created, and its answer has warnings, which nobody sees where a
	// controller creates it.
	eventInjectedWithWarnings = "InjectedWithWarnings"
	eventSkippedWithWarnings  = "SkippedWithWarnings"
)

const (
	// noteLength is the longest note that an API server accepts.
	noteLength = 1024
	// Limits of Events. They bound what ever new owners can cost the API server;
	// the log has every request.
	eventsPerSecond = 5
	eventsBurst     = 50
	eventsWaiting   = 16
	// A rollout meets the same owner again and again. client-go counts what repeats
	// an Event of the last 6 minutes and asks the API server for nothing, so that
	// is not limited.
	eventsCounted    = 1000
	eventCountedTime = 5 * time.Minute
)

// reporter is the webhook's name in its Events.
const reporter = "shunt.dev/webhook"

// announcer writes Events. They are best effort: dropped if there are too many, and
// never waited for. A nil announcer writes none.
type announcer struct {
	recorder events.EventRecorder
	limit    flowcontrol.PassiveRateLimiter
	counted  *cache.LRUExpireCache // of eventKeys
	waiting  chan struct{}
}

// eventKey is what is the same in Events that are counted as one.
type eventKey struct {
	regarding      corev1.ObjectReference
	reason, action string
}

func newAnnouncer(recorder events.EventRecorder) *announcer {
	return &announcer{
		recorder: recorder,
		limit:    flowcontrol.NewTokenBucketPassiveRateLimiter(eventsPerSecond, eventsBurst),
		counted:  cache.NewLRUExpireCache(eventsCounted),
		waiting:  make(chan struct{}, eventsWaiting),
	}
}

// warn writes a warning and returns at once, even if the recorder does not.
func (a *announcer) warn(regarding *corev1.ObjectReference, reason, action, note string) {
	if a == nil {
		return
	}
	key := eventKey{*regarding, reason, action}
	if _, counted := a.counted.Get(key); !counted && !a.limit.TryAccept() {
		return
	}
	a.counted.Add(key, nil, eventCountedTime)
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
