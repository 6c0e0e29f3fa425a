package webhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/cases"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/webhook"
)

const casesDir = "../inject/testdata/cases"

func loadCases(t testing.TB) []cases.Case {
	t.Helper()
	all, err := cases.Load(casesDir)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// server is a webhook as an API server sees it.
type server struct {
	*httptest.Server
	metrics *webhook.Metrics
}

func serve(t testing.TB, cfg config.Config, namespaces webhook.NamespaceGetter, log logr.Logger) server {
	t.Helper()
	metrics := webhook.NewMetrics()
	mux := http.NewServeMux()
	mux.Handle(webhook.Path, webhook.NewHandler(cfg, namespaces, metrics).HTTP(log))
	s := server{httptest.NewTLSServer(mux), metrics}
	t.Cleanup(s.Close)
	return s
}

// review sends the request in an AdmissionReview and returns the response.
func (s server) review(t testing.TB, request admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	t.Helper()
	response, err := s.Client().Post(s.URL+webhook.Path, "application/json", bytes.NewReader(reviewOf(t, request)))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer admissionv1.AdmissionReview
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	if answer.Response == nil || answer.Response.UID != uid || answer.TypeMeta != reviewType {
		t.Fatalf("answer %+v is not a response to %s", answer, uid)
	}
	return answer.Response
}

const uid = "uid-1"

var reviewType = metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}

// reviewOf returns the body that an API server sends.
func reviewOf(t testing.TB, request admissionv1.AdmissionRequest) []byte {
	t.Helper()
	request.UID = uid
	body, err := json.Marshal(admissionv1.AdmissionReview{TypeMeta: reviewType, Request: &request})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func createPod(t testing.TB, pod *corev1.Pod, namespace string) admissionv1.AdmissionRequest {
	t.Helper()
	pod = pod.DeepCopy()
	pod.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	return admissionv1.AdmissionRequest{
		Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}, Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
		Operation: admissionv1.Create, Name: pod.Name, Namespace: namespace, Object: runtime.RawExtension{Raw: raw},
	}
}

// namespaceOf gives the case's namespace a name if it has none.
func namespaceOf(c cases.Case) (string, webhook.StaticNamespaces) {
	name := c.Namespace.Name
	if name == "" {
		name = "some"
	}
	return name, webhook.StaticNamespaces{name: c.Namespace}
}

// TestCases runs the cases of package inject through the webhook.
func TestCases(t *testing.T) {
	for _, c := range loadCases(t) {
		t.Run(c.Name, func(t *testing.T) {
			name, namespaces := namespaceOf(c)
			s := serve(t, c.Config, namespaces, logr.Discard())
			request := createPod(t, c.Pod, name)
			response := s.review(t, request)
			checkOutcome(t, c, response)
			want := inject.Inject(c.Pod, c.Namespace, c.Config).Pod
			if diff := cmp.Diff(want, patched(t, request.Object.Raw, response), cmpopts.EquateEmpty(),
				cmpopts.IgnoreTypes(metav1.TypeMeta{})); diff != "" {
				t.Errorf("pod (-want +got):\n%s", diff)
			}
		})
	}
}

// checkOutcome compares the response with the case's want.txt: the reason, then errors and
// warnings, one a line.
func checkOutcome(t *testing.T, c cases.Case, response *admissionv1.AdmissionResponse) {
	t.Helper()
	reason, rest, _ := strings.Cut(c.Want(), "\n")
	if got := response.AuditAnnotations["reason"]; got != reason {
		t.Errorf("reason %q, want %q", got, reason)
	}
	denied := inject.Reason(reason).Denies()
	if response.Allowed == denied {
		t.Errorf("allowed is %v, reason %s", response.Allowed, reason)
	}
	if (response.Result.Code == http.StatusUnprocessableEntity) != denied {
		t.Errorf("code %d, reason %s", response.Result.Code, reason)
	}
	causes := 0
	for line := range strings.Lines(rest) {
		kind, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch kind {
		case "error":
			if !strings.HasPrefix(text, "and ") { // that there are more
				causes++
			}
			if !strings.Contains(response.Result.Message, text) {
				t.Errorf("message %q\ndoes not say %q", response.Result.Message, text)
			}
		case "warning":
			if !slices.Contains(response.Warnings, text) {
				t.Errorf("warnings %q, want %q", response.Warnings, text)
			}
		}
	}
	if response.Result.Details != nil && len(response.Result.Details.Causes) != causes {
		t.Errorf("%d causes, want %d: %v", len(response.Result.Details.Causes), causes, response.Result.Details.Causes)
	}
	if denied && response.Result.Reason != metav1.StatusReasonInvalid {
		t.Errorf("status reason %q, want %q", response.Result.Reason, metav1.StatusReasonInvalid)
	}
}

// patched returns the pod that the response makes of raw; nil if it changes nothing.
func patched(t testing.TB, raw []byte, response *admissionv1.AdmissionResponse) *corev1.Pod {
	t.Helper()
	if len(response.Patch) == 0 {
		return nil
	}
	if response.PatchType == nil || *response.PatchType != admissionv1.PatchTypeJSONPatch {
		t.Errorf("patch type %v", response.PatchType)
	}
	operations, err := jsonpatch.DecodePatch(response.Patch)
	if err != nil {
		t.Fatal(err)
	}
	text, err := operations.Apply(raw)
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{}
	if err := json.Unmarshal(text, pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

type brokenNamespaces struct{}

var errDown = errors.New("connection refused")

func (brokenNamespaces) Namespace(context.Context, string) (annotation.Namespace, error) {
	return annotation.Namespace{}, errDown
}

// TestFailsClosed checks that a pod about which nothing can be known is denied, with a message that
// says what went wrong.
func TestFailsClosed(t *testing.T) {
	enabled := webhook.StaticNamespaces{"demo": {Name: "demo", Labels: map[string]string{"istio-injection": "enabled"}}}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "echo"}}
	tests := []struct {
		name       string
		namespaces webhook.NamespaceGetter
		edit       func(*admissionv1.AdmissionRequest)
		code       int32
		reason     string
		says       []string
	}{
		{
			name: "API server away", namespaces: brokenNamespaces{}, edit: func(*admissionv1.AdmissionRequest) {},
			code: http.StatusInternalServerError, reason: "NamespaceUnknown",
			says: []string{`namespace "demo"`, `pod "echo"`, "connection refused"},
		},
		{
			name: "namespace unknown", namespaces: enabled, edit: func(r *admissionv1.AdmissionRequest) { r.Namespace = "other" },
			code: http.StatusInternalServerError, reason: "NamespaceUnknown", says: []string{`namespace "other"`},
		},
		{
			name: "no object", namespaces: enabled, edit: func(r *admissionv1.AdmissionRequest) { r.Object.Raw = nil },
			code: http.StatusBadRequest, reason: "Undecodable", says: []string{`decode pod "echo"`, "no content"},
		},
		{
			name: "wrong type of field", namespaces: enabled,
			edit: func(r *admissionv1.AdmissionRequest) {
				r.Object.Raw = []byte(`{"apiVersion":"v1","kind":"Pod","spec":{"hostNetwork":"no"}}`)
			},
			code: http.StatusBadRequest, reason: "Undecodable", says: []string{"hostNetwork"},
		},
		{
			name: "another kind", namespaces: enabled,
			edit: func(r *admissionv1.AdmissionRequest) { r.Kind = metav1.GroupVersionKind{Version: "v1", Kind: "Secret"} },
			code: http.StatusBadRequest, reason: "Undecodable", says: []string{"Secret", "accepted: CREATE of v1 Pod"},
		},
		{
			name: "another operation", namespaces: enabled,
			edit: func(r *admissionv1.AdmissionRequest) { r.Operation = admissionv1.Update },
			code: http.StatusBadRequest, reason: "Undecodable", says: []string{"UPDATE", "accepted: CREATE of v1 Pod"},
		},
		{
			name: "a subresource", namespaces: enabled,
			edit: func(r *admissionv1.AdmissionRequest) { r.SubResource = "binding" },
			code: http.StatusBadRequest, reason: "Undecodable", says: []string{"binding"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, config.Default(), test.namespaces, logr.Discard())
			request := createPod(t, pod, "demo")
			test.edit(&request)
			response := s.review(t, request)
			if response.Allowed || response.Result.Code != test.code || len(response.Patch) > 0 {
				t.Errorf("allowed %v, code %d, patch %q; want a refusal with code %d",
					response.Allowed, response.Result.Code, response.Patch, test.code)
			}
			for _, words := range test.says {
				if !strings.Contains(response.Result.Message, words) {
					t.Errorf("message %q does not say %q", response.Result.Message, words)
				}
			}
			if got := response.AuditAnnotations["reason"]; got != test.reason {
				t.Errorf("reason %q, want %q", got, test.reason)
			}
			if got := count(t, s.metrics, "failed", test.reason); got != 1 {
				t.Errorf("counted %v times, want once", got)
			}
		})
	}
}

// TestFieldsOfANewerAPI checks that fields that this version's types do not know are kept.
func TestFieldsOfANewerAPI(t *testing.T) {
	s := serve(t, config.Default(), enabledNamespace(), logr.Discard())
	request := createPod(t, &corev1.Pod{}, "demo")
	request.Object.Raw = []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"echo"},` +
		`"spec":{"future":{"x":[1]},"initContainers":[{"name":"first","future":true}],"containers":[{"name":"app","image":"app"}]}}`)
	response := s.review(t, request)
	operations, err := jsonpatch.DecodePatch(response.Patch)
	if err != nil {
		t.Fatal(err)
	}
	text, err := operations.Apply(request.Object.Raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, kept := range []string{`"future":{"x":[1]}`, `{"name":"first","future":true}`} {
		if !bytes.Contains(text, []byte(kept)) {
			t.Errorf("patched pod lost %s: %s", kept, text)
		}
	}
}

func enabledNamespace() webhook.StaticNamespaces {
	return webhook.StaticNamespaces{"demo": {Name: "demo", Labels: map[string]string{annotation.NamespaceInjectionKey: "enabled"}}}
}

// TestWarnsThatAWishIsIgnored checks that a pod that asks for the proxy and does not get it is
// warned about.
func TestWarnsThatAWishIsIgnored(t *testing.T) {
	s := serve(t, config.Default(), enabledNamespace(), logr.Discard())
	for _, test := range []struct {
		name string
		pod  corev1.Pod
		want []string
	}{
		{"host network, asked", corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{annotation.InjectKey: "true"}},
			Spec:       corev1.PodSpec{HostNetwork: true},
		}, []string{"sidecar.istio.io/inject: not injected, though the pod says true: " + inject.ReasonHostNetwork.Sentence()}},
		{"host network, not asked", corev1.Pod{Spec: corev1.PodSpec{HostNetwork: true}}, nil},
		{"label declines, annotation asks", corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Labels: map[string]string{annotation.InjectKey: "false"}, Annotations: map[string]string{annotation.InjectKey: "true"},
			},
		}, []string{"sidecar.istio.io/inject: not injected, though the pod says true: " + inject.ReasonPodOptedOut.Sentence()}},
	} {
		t.Run(test.name, func(t *testing.T) {
			response := s.review(t, createPod(t, &test.pod, "demo"))
			if diff := cmp.Diff(test.want, response.Warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}
