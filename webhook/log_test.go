package webhook_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/go-logr/logr/funcr"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/webhook"
)

// logged is a server and its log lines.
type logged struct {
	server
	lines *[]string
}

func serveLogged(t testing.TB, namespaces webhook.NamespaceGetter) logged {
	t.Helper()
	var lines []string
	log := funcr.NewJSON(func(line string) { lines = append(lines, line) }, funcr.Options{Verbosity: 10})
	return logged{serve(t, config.Default(), namespaces, log), &lines}
}

// line returns the one line of a request.
func (l logged) line(t *testing.T) (text string, values map[string]any) {
	t.Helper()
	if len(*l.lines) != 1 {
		t.Fatalf("%d lines, want one a request: %q", len(*l.lines), *l.lines)
	}
	text = (*l.lines)[0]
	*l.lines = nil
	if err := json.Unmarshal([]byte(text), &values); err != nil {
		t.Fatal(err)
	}
	if took, ok := values["durationSeconds"].(float64); !ok || took <= 0 || took > 60 {
		t.Errorf("durationSeconds is %v in %s", values["durationSeconds"], text)
	}
	return text, values
}

type panickingNamespaces struct{}

func (panickingNamespaces) Namespace(context.Context, string) (annotation.Namespace, error) {
	panic("the answer to all of it")
}

// TestLogLine checks that each request is one line, at debug level if it repeats another, with what a person looks for: the pod, by
// generateName if it has no name yet, its owner and namespace, the reason, and the request as the
// API server's log has it.
func TestLogLine(t *testing.T) {
	wrong := map[string]string{annotation.InterceptionModeKey: "BOTH"}
	for _, test := range []struct {
		name       string
		namespaces webhook.NamespaceGetter
		pod        corev1.Pod
		edit       func(*admissionv1.AdmissionRequest)
		want       map[string]any
	}{
		{
			name: "injected", namespaces: enabledNamespace(),
			pod:  corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "echo-5d9-", OwnerReferences: replicaSet("echo-5d9")}},
			edit: func(r *admissionv1.AdmissionRequest) { r.DryRun, r.UserInfo.Username = new(true), "rs-controller" },
			want: map[string]any{
				"msg": "injected", "pod": "echo-5d9-", "owner": "ReplicaSet/echo-5d9", "reason": "Injected", "dryRun": true,
				"user": "rs-controller", "level": 0.0,
			},
		},
		{
			name: "injected before", namespaces: enabledNamespace(), pod: *injectedPod(t, mistypedPod(nil)),
			want: map[string]any{"msg": "skipped", "pod": "echo-5d9-", "reason": "AlreadyInjected", "level": 1.0},
		},
		{
			name: "restored", namespaces: enabledNamespace(), pod: *rewritten(injectedPod(t, mistypedPod(nil))),
			want: map[string]any{"msg": "injected", "pod": "echo-5d9-", "reason": "Injected", "level": 0.0},
		},
		{
			name: "declined", namespaces: enabledNamespace(),
			pod:  corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "echo", Labels: map[string]string{annotation.InjectKey: "false"}}},
			want: map[string]any{"msg": "skipped", "pod": "echo", "reason": "PodOptedOut", "level": 0.0},
		},
		{
			name: "denied", namespaces: enabledNamespace(),
			pod:  corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "wrong", Annotations: wrong}},
			want: map[string]any{"msg": "denied", "pod": "wrong", "owner": "", "reason": "InvalidAnnotation", "dryRun": false},
		},
		{
			name: "failed", namespaces: brokenNamespaces{}, pod: corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "echo"}},
			want: map[string]any{"msg": "failed", "pod": "echo", "reason": "NamespaceUnknown"},
		},
		{
			name: "panicked", namespaces: panickingNamespaces{}, pod: corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "echo"}},
			want: map[string]any{"msg": "failed", "pod": "echo", "reason": "Panic"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := serveLogged(t, test.namespaces)
			request := createPod(t, &test.pod, "demo")
			if test.edit != nil {
				test.edit(&request)
			}
			s.review(t, request)
			text, got := s.line(t)
			test.want["namespace"], test.want["request"] = "demo", uid
			for key, value := range test.want {
				if got[key] != value {
					t.Errorf("%s is %v in %s, want %v", key, got[key], text, value)
				}
			}
		})
	}
}

// TestPanicIsAnswered checks that a panic denies the pod with a reason, and is logged with its
// stack.
func TestPanicIsAnswered(t *testing.T) {
	s := serveLogged(t, panickingNamespaces{})
	response := s.review(t, createPod(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "echo"}}, "demo"))
	if response.Allowed || response.Result.Code != http.StatusInternalServerError {
		t.Errorf("allowed %v, code %d; want a refusal with code 500", response.Allowed, response.Result.Code)
	}
	if got := count(t, s.metrics, "failed", "Panic"); got != 1 {
		t.Errorf("counted %v times, want once", got)
	}
	text, got := s.line(t)
	if stack, _ := got["stack"].(string); !strings.Contains(stack, "panickingNamespaces.Namespace") {
		t.Errorf("the stack does not name what panicked: %s", text)
	}
}

// TestLogHoldsNoBody checks that a pod's content is in no line, whatever becomes of the request, at
// any level.
func TestLogHoldsNoBody(t *testing.T) {
	const secret = "hunter2"
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "echo", Annotations: map[string]string{"password": secret}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{
			{Name: "app", Image: "app", Env: []corev1.EnvVar{{Name: "PASSWORD", Value: secret}}},
		}},
	}
	denied := pod.DeepCopy()
	denied.Annotations[annotation.InterceptionModeKey] = "BOTH"
	declined := pod.DeepCopy()
	declined.Labels = map[string]string{annotation.InjectKey: "false"}
	for _, namespaces := range []webhook.NamespaceGetter{enabledNamespace(), brokenNamespaces{}, panickingNamespaces{}} {
		s := serveLogged(t, namespaces)
		for _, pod := range []*corev1.Pod{pod, denied, declined} {
			body := reviewOf(t, createPod(t, pod, "demo"))
			wrongType := strings.Replace(string(body), `"env":[`, `"env":["`+secret+`",`, 1)
			broken := strings.Replace(string(body), `"env":[`, `"env":[`+secret+`,`, 1)
			for _, body := range []string{string(body), wrongType, broken, string(body[:len(body)/2])} {
				s.post(t, []byte(body), nil)
				if text, _ := s.line(t); strings.Contains(text, secret) {
					t.Errorf("the log has what the pod keeps to itself: %s", text)
				}
			}
		}
	}
}
