package webhook_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/inject/cases"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/webhook"
)

// BenchmarkReview measures an answer without the connection, from AdmissionReview to
// AdmissionReview.
func BenchmarkReview(b *testing.B) {
	b.Run("one container", func(b *testing.B) { benchmarkReview(b, cases.Small()) })
	b.Run("50 containers", func(b *testing.B) { benchmarkReview(b, cases.Large()) })
}

func benchmarkReview(b *testing.B, pod *corev1.Pod) {
	handler := webhook.NewHandler(config.Default(), enabledNamespace(), webhook.NewMetrics()).HTTP(logr.Discard())
	body := reviewOf(b, createPod(b, pod, "demo"))
	b.ReportAllocs()
	for b.Loop() {
		request := httptest.NewRequest(http.MethodPost, webhook.Path, bytes.NewReader(body))
		request.Header.Set("Content-Type", "application/json")
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		if answer.Code != http.StatusOK || !bytes.Contains(answer.Body.Bytes(), []byte(`"patch":`)) {
			b.Fatalf("not injected: %s", answer.Body)
		}
	}
}
