package webhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/cases"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/webhook"
)

// optedInNamespaces returns a namespace for every name, and each asks for the proxy.
type optedInNamespaces struct{}

func (optedInNamespaces) Namespace(_ context.Context, name string) (annotation.Namespace, error) {
	if name == "unknown" {
		return annotation.Namespace{}, errors.New("nobody knows it")
	}
	return annotation.Namespace{Name: name, Labels: map[string]string{annotation.NamespaceInjectionKey: "enabled"}}, nil
}

// FuzzHandler checks that every request, with any header, gets an answer that an API server
// understands, and that injecting the result again changes nothing.
func FuzzHandler(f *testing.F) {
	const media = "application/json"
	for _, c := range loadCases(f) {
		f.Add(http.MethodPost, media, "", reviewOf(f, createPod(f, c.Pod, "demo")))
	}
	good := reviewOf(f, createPod(f, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "echo"}}, "demo"))
	f.Add(http.MethodPost, "application/json; charset=utf-8", "identity", good)
	f.Add(http.MethodPost, media, "", reviewOf(f, createPod(f, &corev1.Pod{}, "unknown")))
	f.Add(http.MethodPost, media, "", good[:len(good)/2])
	f.Add(http.MethodPost, media, "", bytes.Replace(good, []byte("echo"), []byte("\xff"), 1))
	f.Add(http.MethodPost, media, "", bytes.Replace(good, []byte("admission.k8s.io/v1"), []byte("admission.k8s.io/v1beta1"), 1))
	f.Add(http.MethodPost, media, "", bytes.Replace(good, []byte(`"spec"`), []byte(`"spec":{"containers":[null]},"spec"`), 1))
	f.Add(http.MethodPost, media, "", bytes.Replace(good, []byte(`"metadata"`), []byte(`"other"`), 1))
	f.Add(http.MethodPost, media, "gzip", compressed(f, good))
	f.Add(http.MethodPost, media, "", compressed(f, good))
	f.Add(http.MethodPost, "application/vnd.kubernetes.protobuf", "", []byte("k8s\x00"))
	f.Add(http.MethodGet, "", "", []byte{})

	metrics := webhook.NewMetrics()
	handler := webhook.NewHandler(config.Default(), optedInNamespaces{}, metrics).HTTP(logr.Discard())
	f.Fuzz(func(t *testing.T, method, media, coding string, body []byte) {
		var got reply
		if err := budget.Check(len(body), func() { got = answerTo(t, handler, method, media, coding, body) }); err != nil {
			t.Fatal(err)
		}
		if n := count(t, metrics, "failed", "Panic"); n > 0 {
			t.Fatalf("it panics: %s", got.body)
		}
		if got.code != http.StatusOK {
			if err := got.checkStatus(got.code, reasonOf[got.code]); err != nil {
				t.Fatal(err)
			}
			return
		}
		var review admissionv1.AdmissionReview
		if err := kjson.UnmarshalCaseSensitivePreserveInts(body, &review); err != nil || review.Request == nil {
			t.Fatalf("what is no review (%v) has an answer to one: %s", err, got.body)
		}
		pod, err := checkAnswer(review.Request, got.body)
		if err != nil {
			t.Fatalf("%v: %s", err, got.body)
		}
		if pod == nil {
			return
		}
		review.Request.Object.Raw = pod
		again, err := json.Marshal(review)
		if err != nil {
			t.Fatal(err)
		}
		second := answerTo(t, handler, http.MethodPost, "application/json", "", again)
		if !bytes.Contains(second.body, []byte(`"reason":"AlreadyInjected"`)) {
			t.Fatalf("the second time: %s\nof %s", second.body, pod)
		}
	})
}

// budget bounds the memory for an answer. A byte can become a struct of a pod; weigh bounds the
// sum.
var budget = cases.Budget{Memory: 16 << 20, MemoryPerByte: 4 << 10, Time: 2 * time.Second, TimePerByte: 10 * time.Microsecond}

// reasonOf has the codes that a request without a review may get.
var reasonOf = map[int]metav1.StatusReason{
	http.StatusBadRequest:            metav1.StatusReasonBadRequest,
	http.StatusMethodNotAllowed:      metav1.StatusReasonMethodNotAllowed,
	http.StatusRequestEntityTooLarge: metav1.StatusReasonRequestEntityTooLarge,
	http.StatusUnsupportedMediaType:  metav1.StatusReasonUnsupportedMediaType,
}

// answerTo returns the handler's answer, without a connection.
func answerTo(t *testing.T, handler http.Handler, method, media, coding string, body []byte) reply {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, webhook.Path, bytes.NewReader(body))
	if err != nil {
		t.Skip("no client can send that method")
	}
	request.Header["Content-Type"] = []string{media}
	if coding != "" {
		request.Header["Content-Encoding"] = []string{coding}
	}
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, request)
	return reply{answer.Code, answer.Header(), answer.Body.Bytes()}
}

// checkAnswer returns the pod that an API server makes of its request with the answer; nil if the
// pod is unchanged or denied.
func checkAnswer(request *admissionv1.AdmissionRequest, body []byte) ([]byte, error) {
	var answer admissionv1.AdmissionReview
	if strict, err := kjson.UnmarshalStrict(body, &answer); err != nil || len(strict) > 0 {
		return nil, fmt.Errorf("not an AdmissionReview: %w, %v", err, strict)
	}
	response := answer.Response
	if answer.TypeMeta != reviewType || response == nil || response.UID != request.UID || response.Result == nil {
		return nil, errors.New("not an answer to this request")
	}
	if err := checkResponse(response); err != nil || response.Patch == nil {
		return nil, err
	}
	pod, err := sent(request.Object.Raw)
	if err != nil {
		return nil, err
	}
	patch, err := jsonpatch.DecodePatch(response.Patch)
	if err != nil {
		return nil, err
	}
	return patch.Apply(pod)
}

func checkResponse(response *admissionv1.AdmissionResponse) error {
	patchType := admissionv1.PatchType("")
	if response.PatchType != nil {
		patchType = *response.PatchType
	}
	switch {
	case response.AuditAnnotations["reason"] == "":
		return errors.New("no reason")
	case !response.Allowed && (response.Patch != nil || response.Result.Code < 400 || response.Result.Message == ""):
		return errors.New("denied, but with a patch or without a message")
	case (response.Patch != nil) != (patchType == admissionv1.PatchTypeJSONPatch):
		return fmt.Errorf("a patch of %d bytes is of type %q", len(response.Patch), patchType)
	default:
		return nil
	}
}

// sent returns the pod as an API server writes it: each key once, with all fields that a Pod always
// has. The patch is for that text.
func sent(raw []byte) ([]byte, error) {
	var pod corev1.Pod
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &pod); err != nil {
		return nil, fmt.Errorf("the object that is injected is no Pod: %w", err)
	}
	return json.Marshal(pod)
}
