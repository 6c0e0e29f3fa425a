//go:build !race

// The race detector allocates too: make verify runs these without it.

package webhook_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shunt-dev/shunt/inject/cases"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/webhook"
)

const (
	worstSize = 3 << 20
	// longestAnnotations is nearly Kubernetes' limit.
	longestAnnotations = 250_000
	longestAnswer      = 16 << 10 // without the patch
	longestLine        = 4 << 10
)

// answered returns a handler's answer to a body.
func answered(handler http.Handler, body []byte) *httptest.ResponseRecorder {
	request := httptest.NewRequest(http.MethodPost, webhook.Path, bytes.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, request)
	return answer
}

// BenchmarkWorst measures the whole answer for the pods that make most work. Its time is that of
// the processors. Most of it goes into reading 3 MB of JSON, which BenchmarkDecode measures alone.
func BenchmarkWorst(b *testing.B) {
	handler := webhook.NewHandler(config.Default(), enabledNamespace(), webhook.NewMetrics()).HTTP(logr.Discard())
	eachWorst(func(name string, body []byte) {
		b.Run(name, func(b *testing.B) {
			measured(b, func() { answered(handler, body) })
		})
	})
}

// BenchmarkDecode decodes the same bodies as an API server's review and pod.
func BenchmarkDecode(b *testing.B) {
	eachWorst(func(name string, body []byte) {
		b.Run(name, func(b *testing.B) {
			measured(b, func() { decode(body) })
		})
	})
}

func decode(body []byte) {
	var review admissionv1.AdmissionReview
	var pod corev1.Pod
	if err := json.Unmarshal(body, &review); err != nil {
		panic(err)
	}
	if err := json.Unmarshal(review.Request.Object.Raw, &pod); err != nil {
		panic(err)
	}
}

// allocated returns how much memory is allocated, freed or not.
func allocated(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func eachWorst(do func(name string, body []byte)) {
	for _, worst := range cases.WorstPods() {
		do(worst.Name, worstReview(worst, worstSize))
	}
}

func worstReview(worst cases.Worst, size int) []byte {
	pod := worst.Pod(size)
	pod.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	raw, err := json.Marshal(pod)
	if err != nil {
		panic(err)
	}
	var text bytes.Buffer
	text.WriteString(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE",` +
		`"kind":{"version":"v1","kind":"Pod"},"namespace":"demo","object":`)
	text.Write(raw)
	text.WriteString("}}")
	return text.Bytes()
}

func measured(b *testing.B, do func()) {
	b.ReportAllocs()
	start := cases.ProcessorTime()
	for b.Loop() {
		do()
	}
	b.ReportMetric(float64((cases.ProcessorTime()-start).Microseconds())/1000/float64(b.N), "cpu-ms/op")
}

// TestWorst checks that the pods that make most work are answered, with 16 kB besides the patch, 4
// kB of log, and 64 MB of memory besides what it takes to read them. The time limit is generous:
// quadratic work takes minutes.
func TestWorst(t *testing.T) {
	const (
		mostTime  = 5 * time.Second
		mostBytes = 64 << 20
	)
	var lines bytes.Buffer
	log := logr.FromSlogHandler(slog.NewJSONHandler(&lines, nil))
	handler := webhook.NewHandler(config.Default(), enabledNamespace(), webhook.NewMetrics()).HTTP(log)
	for _, worst := range cases.WorstPods() {
		t.Run(worst.Name, func(t *testing.T) {
			for _, size := range []int{longestAnnotations, worstSize} {
				body := worstReview(worst, size)
				floor := allocated(func() { decode(body) })
				lines.Reset()
				start := cases.ProcessorTime()
				var answer *httptest.ResponseRecorder
				taken := allocated(func() { answer = answered(handler, body) })
				if took := cases.ProcessorTime() - start; took > mostTime {
					t.Errorf("%d bytes: it took %v of the processors, want %v at most", size, took, mostTime)
				}
				if taken > floor+mostBytes {
					t.Errorf("%d bytes: %d bytes of memory were taken, of which to read them takes %d", len(body), taken, floor)
				}
				checkSizes(t, answer, lines.Bytes())
			}
		})
	}
}

func checkSizes(t *testing.T, answer *httptest.ResponseRecorder, line []byte) {
	t.Helper()
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(answer.Body.Bytes(), &review); err != nil || review.Response == nil {
		if answer.Code == http.StatusOK || answer.Body.Len() > longestAnswer {
			t.Errorf("code %d and %d bytes: %v", answer.Code, answer.Body.Len(), err)
		}
	} else {
		review.Response.Patch = nil
		text, err := json.Marshal(review)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > longestAnswer {
			t.Errorf("the answer is %d bytes beside its patch, want %d at most: %.500s", len(text), longestAnswer, text)
		}
	}
	if len(line) == 0 || len(line) > longestLine || bytes.Count(line, []byte("\n")) != 1 {
		t.Errorf("the line of the log is %d bytes, want 1 to %d: %.500s", len(line), longestLine, line)
	}
}

// TestSizes checks the same for requests that no API server sends.
func TestSizes(t *testing.T) {
	long := strings.Repeat(`\u0000<`, 200_000)
	pod := `{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"sidecar.istio.io/inject":"maybe"}},"spec":{"containers":[{"name":"a"}]}}`
	review := func(uid, rest string) string {
		return `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"` + uid + `",` + rest + `}}`
	}
	request := `"operation":"CREATE","kind":{"version":"v1","kind":"Pod"},"namespace":"demo","object":`
	for name, body := range map[string]string{
		"uid":             review(long, request+pod),
		"user":            review("u", `"userInfo":{"username":"`+long+`"},`+request+pod),
		"namespace":       review("u", `"operation":"CREATE","kind":{"version":"v1","kind":"Pod"},"namespace":"`+long+`","object":`+pod),
		"name":            review("u", `"name":"`+long+`",`+request+`{"kind":"`+long+`"}`),
		"operation":       review("u", `"operation":"`+long+`"`),
		"kind":            review("u", `"operation":"CREATE","kind":{"kind":"`+long+`"}`),
		"pod of no kind":  review("u", request+`{"apiVersion":"`+long+`","kind":"`+long+`"}`),
		"pod's namespace": review("u", request+`{"apiVersion":"v1","kind":"Pod","metadata":{"namespace":"`+long+`"}}`),
		"no number":       review("u", request+`{"apiVersion":"v1","kind":"Pod","spec":{"priority":`+strings.Repeat("9", 1<<20)+`}}`),
		"no quantity": review("u", request+`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"resources":{"limits":{"cpu":"`+
			long+`"}}}]}}`),
		"kind of review": `{"apiVersion":"` + long + `","kind":"` + long + `"}`,
		"owner": review("u", request+`{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"sidecar.istio.io/inject":"maybe"},`+
			`"ownerReferences":[{"controller":true,"name":"`+long+`","kind":"`+long+`"}]}}`),
		"generateName": review("u", request+`{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"`+long+
			`","labels":{"sidecar.istio.io/inject":"`+long+`"}},"spec":{"containers":[{"name":"`+long+`"}]}}`),
		"containers of nothing": review("u", request+`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[`+
			strings.TrimSuffix(strings.Repeat("{},", 2_000_000), ",")+`]}}`),
	} {
		t.Run(name, func(t *testing.T) {
			var lines bytes.Buffer
			for _, log := range []slog.Handler{slog.NewJSONHandler(&lines, nil), slog.NewTextHandler(&lines, nil)} {
				lines.Reset()
				handler := webhook.NewHandler(config.Default(), optedInNamespaces{}, webhook.NewMetrics()).
					HTTP(logr.FromSlogHandler(log))
				checkSizes(t, answered(handler, []byte(body)), lines.Bytes())
			}
		})
	}
	var lines bytes.Buffer
	handler := webhook.NewHandler(config.Default(), panickingNamespaces{}, webhook.NewMetrics())
	checkSizes(t, answered(handler.HTTP(logr.FromSlogHandler(slog.NewJSONHandler(&lines, nil))),
		[]byte(review("u", request+pod))), lines.Bytes())
}
