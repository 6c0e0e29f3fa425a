package webhook_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/webhook"
)

// event is one call of a recorder.
type event struct {
	Regarding            corev1.ObjectReference
	Related              runtime.Object
	Type, Reason, Action string
	note                 string
}

// recorder passes Events on. A full channel blocks it.
type recorder chan event

func (r recorder) Eventf(regarding, related runtime.Object, eventtype, reason, action, note string, args ...any) {
	r <- event{
		Regarding: *regarding.(*corev1.ObjectReference), Related: related, Type: eventtype, Reason: reason, Action: action,
		note: fmt.Sprintf(note, args...),
	}
}

// all returns the Events so far, in a bubble of synctest.
func (r recorder) all() []event {
	synctest.Wait()
	var got []event
	for {
		select {
		case e := <-r:
			got = append(got, e)
		default:
			return got
		}
	}
}

// recorded answers reviews and records Events without a connection, so that it can run in a bubble
// of synctest.
type recorded struct {
	http.Handler
	events recorder
}

func record(namespaces webhook.NamespaceGetter, events recorder) recorded {
	handler := webhook.NewHandler(config.Default(), namespaces, webhook.NewMetrics())
	handler.RecordEvents(events)
	return recorded{handler.HTTP(logr.Discard()), events}
}

func (r recorded) review(t *testing.T, request admissionv1.AdmissionRequest) {
	t.Helper()
	post := httptest.NewRequest(http.MethodPost, webhook.Path, bytes.NewReader(reviewOf(t, request)))
	post.Header.Set("Content-Type", "application/json")
	answer := httptest.NewRecorder()
	r.ServeHTTP(answer, post)
	if answer.Code != http.StatusOK || answer.Body.Len() == 0 {
		t.Fatalf("code %d: %s", answer.Code, answer.Body)
	}
}

func replicaSet(name string) []metav1.OwnerReference {
	return []metav1.OwnerReference{
		{APIVersion: "v1", Kind: "Config", Name: "not-the-controller", UID: "uid-of-config"},
		{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: name, UID: types.UID("uid-of-" + name), Controller: new(true)},
	}
}

// wrongPod returns a pod that is denied.
func wrongPod(owners []metav1.OwnerReference) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "echo-5d9-", OwnerReferences: owners, Annotations: map[string]string{annotation.InterceptionModeKey: "BOTH"},
	}}
}

// TestEvents checks which requests write an Event, about what, and its text.
func TestEvents(t *testing.T) {
	wrong, right := wrongPod(replicaSet("echo-5d9")), wrongPod(replicaSet("echo-5d9"))
	right.Annotations = nil
	declined := right.DeepCopy()
	declined.Labels = map[string]string{annotation.InjectKey: "false"}
	mistyped := mistypedPod(replicaSet("echo-5d9"))
	onHost := right.DeepCopy()
	onHost.Annotations, onHost.Spec.HostNetwork = map[string]string{annotation.InjectKey: "true"}, true
	again := injectedPod(t, mistyped)
	restored := rewritten(again)
	node := wrongPod([]metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "node-1", UID: "uid-of-node", Controller: new(true)}})
	for _, test := range []struct {
		name       string
		namespaces webhook.NamespaceGetter
		pod        *corev1.Pod
		dryRun     bool
		reason     string // empty if no Event is wanted
		says       string
	}{
		{name: "denied", namespaces: enabledNamespace(), pod: wrong, reason: "InvalidAnnotation", says: `"BOTH": accepted: REDIRECT`},
		{name: "denied, dry run", namespaces: enabledNamespace(), pod: wrong, dryRun: true},
		{name: "denied, no owner", namespaces: enabledNamespace(), pod: wrongPod(nil)},
		{name: "denied, an owner that is no controller", namespaces: enabledNamespace(), pod: wrongPod(replicaSet("echo-5d9")[:1])},
		{name: "denied, of a node, which is in no namespace", namespaces: enabledNamespace(), pod: node},
		{name: "failed", namespaces: brokenNamespaces{}, pod: right, reason: "NamespaceUnknown", says: "connection refused"},
		{name: "failed, dry run", namespaces: brokenNamespaces{}, pod: right, dryRun: true},
		{name: "panicked", namespaces: panickingNamespaces{}, pod: right, reason: "Panic", says: "panic: "},
		{name: "injected", namespaces: enabledNamespace(), pod: right},
		{
			name: "injected, with a warning", namespaces: enabledNamespace(), pod: mistyped,
			reason: "InjectedWithWarnings", says: "sidecar.istio.io/interceptMode",
		},
		{name: "injected, with a warning, dry run", namespaces: enabledNamespace(), pod: mistyped, dryRun: true},
		{name: "injected before, with a warning", namespaces: enabledNamespace(), pod: again},
		{
			name: "restored", namespaces: enabledNamespace(), pod: restored,
			reason: "InjectedWithWarnings", says: "sidecar.istio.io/status",
		},
		{
			name: "skipped, though it asks", namespaces: enabledNamespace(), pod: onHost,
			reason: "SkippedWithWarnings", says: "not injected, though the pod says true",
		},
		{name: "skipped", namespaces: enabledNamespace(), pod: declined},
	} {
		synctest.Test(t, func(t *testing.T) {
			t.Log(test.name)
			r := record(test.namespaces, make(recorder, 10))
			request := createPod(t, test.pod, "demo")
			request.DryRun = &test.dryRun
			r.review(t, request)
			got := r.events.all()
			var want []event
			if test.reason != "" {
				want = []event{{
					Regarding: corev1.ObjectReference{
						APIVersion: "apps/v1", Kind: "ReplicaSet", Namespace: "demo", Name: "echo-5d9", UID: "uid-of-echo-5d9",
					},
					Type: "Warning", Reason: test.reason, Action: "Inject",
				}}
			}
			for i := range got {
				if note := got[i].note; !strings.Contains(note, test.says) || !strings.HasPrefix(note, `pod "echo-5d9-": `) {
					t.Errorf("note %q does not say %q", note, test.says)
				}
				got[i].note = ""
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(event{})); diff != "" {
				t.Errorf("Events (-want +got):\n%s", diff)
			}
		})
	}
}

// injectedPod returns the pod as the webhook leaves it in a namespace that opted in.
func injectedPod(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	pod = pod.DeepCopy()
	pod.Namespace = "demo"
	pod.Spec.Containers = []corev1.Container{{Name: "app", Image: "app"}}
	result := inject.Inject(pod, enabledNamespace()["demo"], config.Default())
	if !result.Inject {
		t.Fatal(result.Decision)
	}
	return result.Pod
}

// rewritten returns an injected pod after another webhook has changed what Shunt put into it.
func rewritten(pod *corev1.Pod) *corev1.Pod {
	pod = pod.DeepCopy()
	pod.Spec.InitContainers[0].Image = "rewritten"
	return pod
}

// TestEventNoteFits checks that an API server accepts every note: up to 1,024 bytes of whole
// characters.
func TestEventNoteFits(t *testing.T) {
	for shift := range 4 { // cuts at every byte of a character
		synctest.Test(t, func(t *testing.T) {
			pod := wrongPod(replicaSet("echo"))
			pod.GenerateName = strings.Repeat("x", shift)
			for _, key := range []string{
				annotation.InterceptionModeKey, annotation.ExcludeInboundPortsKey, annotation.ExcludeOutboundPortsKey,
				annotation.IncludeOutboundPortsKey,
			} {
				pod.Annotations[key] = strings.Repeat("界", 100)
			}
			r := record(enabledNamespace(), make(recorder, 10))
			r.review(t, createPod(t, pod, "demo"))
			got := r.events.all()
			if len(got) != 1 {
				t.Fatalf("%d Events, want one", len(got))
			}
			if note := got[0].note; len(note) > 1024 || len(note) < 1000 || !utf8.ValidString(note) || !strings.HasSuffix(note, "…") {
				t.Errorf("note of %d bytes: %q", len(note), note)
			}
		})
	}
}

// TestEventsAreNotWaitedFor checks that a recorder that hangs delays no answer, and that the number
// of goroutines that wait for it is bounded.
func TestEventsAreNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := record(enabledNamespace(), make(recorder))
		start := time.Now()
		for range 200 {
			r.review(t, createPod(t, wrongPod(replicaSet("echo")), "demo"))
		}
		if took := time.Since(start); took > 0 { // time in a bubble passes only while all wait
			t.Errorf("answers waited for %v", took)
		}
		if got := len(r.events.all()); got != 16 {
			t.Errorf("%d Events are waiting, want 16", got)
		}
	})
}

// TestEventsAreBounded checks the limits of Events for denials with ever new owners.
func TestEventsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := record(enabledNamespace(), make(recorder, 1000))
		owners := 0
		ask := func(times int, pod func(owners []metav1.OwnerReference) *corev1.Pod) int {
			for range times {
				owners++
				r.review(t, createPod(t, pod(replicaSet(fmt.Sprintf("echo-%d", owners))), "demo"))
				synctest.Wait()
			}
			return len(r.events.all())
		}
		if got := ask(200, mistypedPod); got != 50 {
			t.Errorf("%d Events of 200 pods with warnings at once, want 50", got)
		}
		if got := ask(200, wrongPod); got != 50 {
			t.Errorf("%d Events of 200 refusals at once, want 50, whatever warnings there were", got)
		}
		time.Sleep(2 * time.Second)
		if got := ask(200, wrongPod); got != 10 {
			t.Errorf("%d Events after two seconds, want 10", got)
		}
	})
}

// TestRepeatedEvents checks that what client-go counts as one Event is not limited, and leaves the
// budget to other owners.
func TestRepeatedEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := record(enabledNamespace(), make(recorder, 1000))
		ask := func(pod *corev1.Pod) int {
			r.review(t, createPod(t, pod, "demo"))
			return len(r.events.all())
		}
		for i := range 500 {
			if got := ask(mistypedPod(replicaSet("large"))); got != 1 {
				t.Fatalf("pod %d of one owner: %d Events, want one to count", i, got)
			}
		}
		for i := range 49 {
			if got := ask(mistypedPod(replicaSet(fmt.Sprintf("echo-%d", i)))); got != 1 {
				t.Fatalf("owner %d: %d Events, want one", i, got)
			}
		}
		if got := ask(mistypedPod(replicaSet("too-many"))); got != 0 {
			t.Errorf("%d Events of one owner too many, want none", got)
		}
		if got := ask(mistypedPod(replicaSet("large"))); got != 1 {
			t.Errorf("%d Events of an owner that had one, want one", got)
		}
	})
}

// mistypedPod returns a pod that is injected with a warning.
func mistypedPod(owners []metav1.OwnerReference) *corev1.Pod {
	pod := wrongPod(owners)
	pod.Annotations = map[string]string{"sidecar.istio.io/interceptMode": "TPROXY"}
	return pod
}
