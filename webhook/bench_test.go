package webhook_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/webhook"
)

// BenchmarkReview is an answer without the connection: AdmissionReview bytes
// in, AdmissionReview bytes out.
func BenchmarkReview(b *testing.B) {
	handler := webhook.NewHandler(inject.DefaultConfig(), enabledNamespace(), webhook.NewMetrics()).HTTP(logr.Discard())
	body := reviewOf(b, createPod(b, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "echo"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}, "demo"))
	b.ReportAllocs()
	for b.Loop() {
		request := httptest.NewRequest(http.MethodPost, webhook.Path, bytes.NewReader(body))
		request.Header.Set("Content-Type", "application/json")
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		if answer.Code != http.StatusOK || answer.Body.Len() < len(body) {
			b.Fatalf("not injected: %s", answer.Body)
		}
	}
}
