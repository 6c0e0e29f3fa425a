package webhook_test

import (
	"bytes"
	"fmt"
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
// in, AdmissionReview bytes out. The large pod has 50 containers with 1,500
// variables between them, and 300 volumes.
func BenchmarkReview(b *testing.B) {
	small := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "echo"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	large := small.DeepCopy()
	large.Spec.Containers = nil
	for i := range 50 {
		app := corev1.Container{Name: fmt.Sprintf("app%d", i), Image: "app"}
		for j := range 30 {
			app.Env = append(app.Env, corev1.EnvVar{Name: fmt.Sprintf("V%d_%d", i, j), Value: "value"})
		}
		large.Spec.Containers = append(large.Spec.Containers, app)
	}
	for i := range 300 {
		large.Spec.Volumes = append(large.Spec.Volumes, corev1.Volume{Name: fmt.Sprintf("volume%d", i)})
	}
	b.Run("one container", func(b *testing.B) { benchmarkReview(b, small) })
	b.Run("50 containers", func(b *testing.B) { benchmarkReview(b, large) })
}

func benchmarkReview(b *testing.B, pod *corev1.Pod) {
	handler := webhook.NewHandler(inject.DefaultConfig(), enabledNamespace(), webhook.NewMetrics()).HTTP(logr.Discard())
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
