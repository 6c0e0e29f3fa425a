//go:build linux

package agent

import (
	"context"
	"log/slog"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/cache"
	client "k8s.io/client-go/kubernetes/typed/events/v1"
	"k8s.io/client-go/util/flowcontrol"
)

// Reasons of Events.
const (
	eventFailed  = "InterceptionFailed"
	eventRefused = "InterceptionRefused"
	eventLate    = "InterceptedLate"
	eventChanged = "InterceptionChanged"
)

const (
	reporter     = "shunt.dev/node"
	actionSetUp  = "SetUpNetwork"
	noteLength   = 1024 // the longest that an API server accepts
	eventTimeout = 10 * time.Second
	// Limits: pods that fail are tried again and again.
	eventsPerSecond = 1
	eventsBurst     = 25
	eventsWaiting   = 16
	eventsTold      = 1000
	eventToldTime   = 5 * time.Minute
)

// Events writes Events about pods. They are best effort: dropped if there are too
// many, and never waited for. A nil Events writes none.
type Events struct {
	api     client.EventsGetter
	node    string
	log     *slog.Logger
	limit   flowcontrol.PassiveRateLimiter
	told    *cache.LRUExpireCache // of eventKeys
	waiting chan struct{}
}

// eventKey is what is the same in Events of which one is enough for a while.
type eventKey struct{ uid, reason string }

// NewEvents returns Events of the agent of a node.
func NewEvents(api client.EventsGetter, node string, log *slog.Logger) *Events {
	return &Events{
		api: api, node: node, log: log,
		limit: flowcontrol.NewTokenBucketPassiveRateLimiter(eventsPerSecond, eventsBurst),
		told:  cache.NewLRUExpireCache(eventsTold), waiting: make(chan struct{}, eventsWaiting),
	}
}

func (e *Events) warn(p pod, reason, note string)   { e.write(p, corev1.EventTypeWarning, reason, note) }
func (e *Events) normal(p pod, reason, note string) { e.write(p, corev1.EventTypeNormal, reason, note) }

func (e *Events) write(p pod, kind, reason, note string) {
	if e == nil {
		return
	}
	key := eventKey{p.uid, reason}
	if _, told := e.told.Get(key); told || !e.limit.TryAccept() {
		return
	}
	e.told.Add(key, nil, eventToldTime)
	select {
	case e.waiting <- struct{}{}:
	default:
		return
	}
	go func() {
		defer func() { <-e.waiting }()
		ctx, cancel := context.WithTimeout(context.Background(), eventTimeout)
		defer cancel()
		event := &eventsv1.Event{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "shunt-node-", Namespace: p.namespace},
			EventTime:  metav1.NowMicro(), Type: kind, Reason: reason, Action: actionSetUp, Note: clip(note),
			ReportingController: reporter, ReportingInstance: e.node,
			Regarding: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: p.namespace, Name: p.name, UID: types.UID(p.uid)},
		}
		if _, err := e.api.Events(p.namespace).Create(ctx, event, metav1.CreateOptions{}); err != nil {
			e.log.Warn("an Event was not written", "pod", p.String(), "reason", reason, "error", err)
		}
	}()
}

// clip shortens what may have been made long on purpose, for Events, logs and the
// runtime.
func clip(note string) string {
	return strings.ToValidUTF8(note[:min(len(note), noteLength)], "")
}
