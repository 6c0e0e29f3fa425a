package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/version"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// apiVersions are the successive answers of an API server.
type apiVersions struct {
	answers []string // empty for none
	asked   int
}

func (a *apiVersions) ServerVersionWithContext(context.Context) (*version.Info, error) {
	answer := a.answers[a.asked]
	a.asked++
	if answer == "" {
		return nil, errors.New("nobody answers")
	}
	return &version.Info{GitVersion: answer}, nil
}

func TestNativeSince(t *testing.T) {
	for version, want := range map[string]string{
		"v1.28.15": "false", "v1.28.9-eks-036c24b": "false", "v1.29.0-rc.1": "true", "v1.29.3-gke.100": "true",
		"v1.37.2": "true", "v2.0.0": "true", "unknown": "error", "v1": "error",
	} {
		got := "false"
		natives, err := (&versionReader{api: &apiVersions{answers: []string{version}}, log: logr.Discard()}).read(t.Context())
		switch {
		case err != nil && !strings.Contains(err.Error(), version):
			t.Errorf("%s: the error does not name it: %v", version, err)
			fallthrough
		case err != nil:
			got = "error"
		case natives:
			got = "true"
		}
		if got != want {
			t.Errorf("%s: %s, want %s", version, got, want)
		}
	}
}

// TestVersionDecidesTheOrder checks that nobody is answered, and the webhook is not ready, before
// the API server has reported its version; and that later configurations use it.
func TestVersionDecidesTheOrder(t *testing.T) {
	for version, native := range map[string]bool{"v1.28.0": false, "v1.29.0": true} {
		handler := NewHandler(config.Default(), StaticNamespaces{"demo": {Name: "demo"}}, NewMetrics())
		handler.current.waitForVersion()
		if got := handler.complete(t.Context(), podRequest(t)); got.verdict != verdictFailed || got.reason != failureVersion ||
			got.response.Allowed || handler.current.check(nil) == nil {
			t.Errorf("before: %s %s, readiness %v", got.verdict, got.reason, handler.current.check(nil))
		}
		handler.SetConfig(config.Default()) // a changed file is no answer
		if handler.current.check(nil) == nil {
			t.Error("ready by a configuration alone")
		}
		api := &apiVersions{answers: []string{"", "", version}}
		ask := &versionReader{api: api, report: handler.current.setNativeSidecars, log: logr.Discard(), retry: time.Millisecond}
		if err := ask.Start(t.Context()); err != nil || api.asked != 3 || handler.current.check(nil) != nil {
			t.Fatalf("error %v, asked %d times, readiness %v", err, api.asked, handler.current.check(nil))
		}
		for _, when := range []string{"the first", "a later"} {
			pod := handler.current.injector.Load().Inject(askingPod(), annotation.Namespace{}).Pod
			if isNative := pod.Spec.Containers[0].Name != podplan.ProxyContainerName; isNative != native {
				t.Errorf("%s, %s configuration: native is %v", version, when, isNative)
			}
			later := config.Default()
			later.Concurrency = 3
			handler.SetConfig(later)
		}
		pod := askingPod()
		pod.Annotations = map[string]string{annotation.NativeSidecarKey: "true"}
		if result := handler.current.injector.Load().Inject(pod, annotation.Namespace{}); result.Denied() == native {
			t.Errorf("%s: a pod that wants a native sidecar: %s %v", version, result.Reason, result.Errors)
		}
	}
}

// TestAskingEndsWithTheManager checks that asking ends with the manager, also without an answer.
func TestAskingEndsWithTheManager(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	told := false
	reader := &versionReader{
		api: &apiVersions{answers: []string{""}}, report: func(bool) { told = true }, log: logr.Discard(), retry: time.Hour,
	}
	if err := reader.Start(ctx); err != nil || told {
		t.Errorf("error %v, told %v", err, told)
	}
}

func askingPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "echo", Namespace: "demo", Labels: map[string]string{annotation.InjectKey: "true"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
}

func podRequest(t *testing.T) admission.Request {
	t.Helper()
	raw, err := json.Marshal(askingPod())
	if err != nil {
		t.Fatal(err)
	}
	return admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		UID: "uid", Operation: admissionv1.Create, Namespace: "demo", Name: "echo",
		Kind:   metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
		Object: runtime.RawExtension{Raw: raw},
	}}
}
