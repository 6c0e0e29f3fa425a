package webhook_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/webhook"
)

// reply is an answer of any kind.
type reply struct {
	code   int
	header http.Header
	body   []byte
}

// post sends a body as an API server does, with what edit changes.
func (s server) post(t testing.TB, body []byte, edit func(*http.Request)) reply {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+webhook.Path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if edit != nil {
		edit(request)
	}
	response, err := s.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{response.StatusCode, response.Header, answer}
}

// checkStatus checks that the reply is a Status that an API server can pass on.
func (r reply) checkStatus(code int, reason metav1.StatusReason, says ...string) error {
	var status metav1.Status
	if err := json.Unmarshal(r.body, &status); err != nil {
		return fmt.Errorf("decode %q: %w", r.body, err)
	}
	if r.header.Get("Content-Type") != "application/json" || status.Kind != "Status" || status.APIVersion != "v1" {
		return fmt.Errorf("%s of kind %q is no Status: %s", r.header.Get("Content-Type"), status.Kind, r.body)
	}
	if r.code != code || status.Code != int32(code) || status.Reason != reason || status.Status != metav1.StatusFailure {
		return fmt.Errorf("code %d and %s, want %d and reason %s", r.code, r.body, code, reason)
	}
	for _, words := range append(says, "shunt-webhook: ") {
		if !strings.Contains(status.Message, words) {
			return fmt.Errorf("message %q does not say %q", status.Message, words)
		}
	}
	return nil
}

func compressed(t testing.TB, text []byte) []byte {
	t.Helper()
	var buffer bytes.Buffer
	w := gzip.NewWriter(&buffer)
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

// TestBodies checks that a request without a review is answered with what is wrong and what is
// accepted, and never with a review that an API server could take for its own.
func TestBodies(t *testing.T) {
	good := reviewOf(t, createPod(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "echo"}}, "demo"))
	replaced := func(from, to string) []byte {
		if !bytes.Contains(good, []byte(from)) {
			t.Fatalf("the review has no %s: %s", from, good)
		}
		return bytes.Replace(good, []byte(from), []byte(to), 1)
	}
	const (
		bad    = metav1.StatusReasonBadRequest
		method = metav1.StatusReasonMethodNotAllowed
		large  = metav1.StatusReasonRequestEntityTooLarge
		media  = metav1.StatusReasonUnsupportedMediaType
	)
	header := func(key string, values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header[key] = values }
	}
	for _, test := range []struct {
		name   string
		body   []byte
		edit   func(*http.Request)
		code   int
		reason metav1.StatusReason
		says   []string
	}{
		{"GET", nil, func(r *http.Request) { r.Method = http.MethodGet }, 405, method, []string{"GET", "accepted: POST"}},
		{"PUT", good, func(r *http.Request) { r.Method = http.MethodPut }, 405, method, []string{"PUT", "accepted: POST"}},
		{"empty", []byte{}, nil, 400, bad, []string{"empty", "accepted: an AdmissionReview of admission.k8s.io/v1"}},
		{"spaces", []byte(" \n "), nil, 400, bad, []string{"decode the AdmissionReview"}},
		{"text", []byte("hello"), nil, 400, bad, []string{"decode the AdmissionReview"}},
		{"null", []byte("null"), nil, 400, bad, []string{`kind "" of ""`}},
		{"a list", []byte("[]"), nil, 400, bad, []string{"decode the AdmissionReview"}},
		{"YAML", []byte("kind: AdmissionReview\n"), nil, 400, bad, []string{"decode the AdmissionReview"}},
		{"truncated", good[:len(good)-10], nil, 400, bad, []string{"unexpected end of JSON input"}},
		{"two reviews", append(append([]byte{}, good...), good...), nil, 400, bad, []string{"after top-level value"}},
		{"no UTF-8", replaced(`"echo"`, "\"ech\xff\""), nil, 400, bad, []string{"UTF-8"}},
		{"UTF-16", []byte("\xff\xfe{\x00}\x00"), nil, 400, bad, []string{"UTF-8"}},
		{
			"deep", []byte(`{"request":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + "}"), nil,
			400, bad, []string{"exceeded max depth"},
		},
		{
			"wrong kind", replaced(`"AdmissionReview"`, `"ConversionReview"`), nil, 400, bad,
			[]string{`kind "ConversionReview" of "admission.k8s.io/v1": accepted: AdmissionReview of admission.k8s.io/v1`},
		},
		{
			"a pod", []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"echo"}}`), nil, 400, bad,
			[]string{`kind "Pod" of "v1"`},
		},
		{
			"wrong version", replaced("admission.k8s.io/v1", "admission.k8s.io/v1beta1"), nil, 400, bad,
			[]string{`"admission.k8s.io/v1beta1"`, "accepted: AdmissionReview of admission.k8s.io/v1"},
		},
		{
			"no type", []byte(`{"request":{"uid":"uid-1"}}`), nil, 400, bad, []string{`kind "" of ""`},
		},
		{
			"no request", []byte(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`), nil,
			400, bad, []string{"no request"},
		},
		{"no uid", replaced(`"uid":"uid-1"`, `"uid":""`), nil, 400, bad, []string{"no uid"}},
		{"wrong type of field", replaced(`"uid":"uid-1"`, `"uid":7`), nil, 400, bad, []string{"uid"}},
		{"too large", make([]byte, 7<<20+1), nil, 413, large, []string{"accepted: up to 7340032 bytes"}},
		{
			"too large, of no declared size", make([]byte, 7<<20+1), func(r *http.Request) { r.ContentLength = -1 },
			413, large, []string{"accepted: up to 7340032 bytes"},
		},
		{
			"compressed, and says so", compressed(t, good), header("Content-Encoding", "gzip"),
			415, media, []string{`Content-Encoding "gzip": accepted: identity`},
		},
		{"compressed, without a word", compressed(t, good), nil, 400, bad, []string{"UTF-8"}},
		{
			"protobuf", good, header("Content-Type", "application/vnd.kubernetes.protobuf"),
			415, media, []string{`"application/vnd.kubernetes.protobuf": accepted: application/json`},
		},
		{"no type of content", good, header("Content-Type"), 415, media, []string{"accepted: application/json"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, config.Default(), enabledNamespace(), logr.Discard())
			got := s.post(t, test.body, test.edit)
			if err := got.checkStatus(test.code, test.reason, test.says...); err != nil {
				t.Error(err)
			}
			if allow := got.header.Get("Allow"); (allow == "POST") != (test.code == 405) {
				t.Errorf("Allow: %q with code %d", allow, test.code)
			}
			if counted := count(t, s.metrics, "failed", "Undecodable"); counted != 1 {
				t.Errorf("counted %v times, want once", counted)
			}
		})
	}
}

// TestUnusualBodies checks bodies that an API server may send, but seldom does.
func TestUnusualBodies(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "echo"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}}}
	good := reviewOf(t, createPod(t, pod, "demo"))
	large := pod.DeepCopy()
	for i := range 30_000 {
		variable := corev1.EnvVar{Name: fmt.Sprintf("V%d", i), Value: strings.Repeat("x", 80)}
		large.Spec.Containers[0].Env = append(large.Spec.Containers[0].Env, variable)
	}
	long := large.DeepCopy()
	long.Spec.Containers[0] = corev1.Container{Name: "app", Args: []string{strings.Repeat("<", 500_000), strings.Repeat("x", 3<<20)}}
	for _, test := range []struct {
		name string
		body []byte
		edit func(*http.Request)
	}{
		{"of no declared size", good, func(r *http.Request) { r.ContentLength = -1 }},
		{"charset", good, func(r *http.Request) { r.Header.Set("Content-Type", "application/json; charset=utf-8") }},
		{"identity", good, func(r *http.Request) { r.Header.Set("Content-Encoding", "identity") }},
		{"a field of a newer API", bytes.Replace(good, []byte(`"uid"`), []byte(`"newer":{"x":[1]},"uid"`), 1), nil},
		{"of 3 MB in variables", reviewOf(t, createPod(t, large, "demo")), nil},
		{"as large as an object can be", reviewOf(t, createPod(t, long, "demo")), nil},
		{"other words", reviewOf(t, createPod(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Name: "echo", Annotations: map[string]string{"greeting": "Grüße, 世界 \u2028\U0001F600"},
		}}, "demo")), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, config.Default(), enabledNamespace(), logr.Discard())
			got := s.post(t, test.body, test.edit)
			// The answer time is too short on a very busy machine.
			for try := 1; try < 10 && bytes.Contains(got.body, []byte("Abandoned")); try++ {
				got = s.post(t, test.body, test.edit)
			}
			var review admissionv1.AdmissionReview
			if err := json.Unmarshal(got.body, &review); err != nil {
				t.Fatalf("code %d: %v: %s", got.code, err, got.body)
			}
			if got.code != 200 || review.TypeMeta != reviewType || review.Response == nil || review.Response.UID != uid {
				t.Fatalf("code %d, %s", got.code, got.body)
			}
			if !review.Response.Allowed || len(review.Response.Patch) == 0 {
				t.Errorf("not injected: %s", got.body)
			}
		})
	}
}

// TestBodyThatBreaksOff checks that a body shorter than stated is an error that the log explains.
func TestBodyThatBreaksOff(t *testing.T) {
	s := serveLogged(t, enabledNamespace())
	body := reviewOf(t, createPod(t, &corev1.Pod{}, "demo"))
	address := s.Listener.Addr().String()
	connection, err := tls.Dial("tcp", address, s.Client().Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	fmt.Fprintf(connection, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		webhook.Path, address, len(body), body[:100])
	if err := connection.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	says := fmt.Sprintf("the body ends after 100 of %d bytes", len(body))
	if err := (reply{response.StatusCode, response.Header, text}).checkStatus(400, metav1.StatusReasonBadRequest, says); err != nil {
		t.Error(err)
	}
	if line, values := s.line(t); values["msg"] != "failed" || values["reason"] != "Undecodable" || values["error"] != says {
		t.Errorf("log line %s", line)
	}
}

// held is a lookup that lasts until it is released.
type held struct {
	webhook.StaticNamespaces
	asked, answer chan struct{}
}

func (h held) Namespace(ctx context.Context, name string) (annotation.Namespace, error) {
	if _, ok := ctx.Deadline(); !ok {
		return annotation.Namespace{}, errors.New("a lookup could take for ever")
	}
	close(h.asked)
	select {
	case <-h.answer:
		return h.StaticNamespaces.Namespace(ctx, name)
	case <-ctx.Done():
		return annotation.Namespace{}, ctx.Err()
	}
}

// TestAnswersWhileStopping checks that a request in progress when the server is told to stop is
// answered, and not denied because of it.
func TestAnswersWhileStopping(t *testing.T) {
	dir, metrics := t.TempDir(), webhook.NewMetrics()
	renew(t, dir, "..1", 2*time.Hour)
	namespaces := held{enabledNamespace(), make(chan struct{}), make(chan struct{})}
	address, stop := startServerFor(t, dir, metrics, webhook.NewHandler(config.Default(), namespaces, metrics), "")
	s := server{&httptest.Server{URL: "https://" + address}, metrics}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}}}
	go func() {
		<-namespaces.asked
		stop()
		time.Sleep(100 * time.Millisecond) // while it stops accepting
		close(namespaces.answer)
	}()
	response, err := client.Post(s.URL+webhook.Path, "application/json", bytes.NewReader(reviewOf(t, createPod(t, &corev1.Pod{}, "demo"))))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(response.Body).Decode(&review); err != nil {
		t.Fatal(err)
	}
	if review.Response == nil || !review.Response.Allowed || len(review.Response.Patch) == 0 {
		t.Errorf("answered with %+v", review.Response)
	}
}
