package webhook_test

import (
	"testing"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/webhook"
)

// TestMetrics checks that every reason exists at 0 before anything happened, and that an answer is
// counted, timed and measured.
func TestMetrics(t *testing.T) {
	s := serve(t, config.Default(), enabledNamespace(), logr.Discard())
	for _, reason := range inject.Reasons() {
		result := map[bool]string{true: "denied", false: "skipped"}[reason.Denies()]
		if reason == inject.ReasonInjected {
			result = "injected"
		}
		if got := count(t, s.metrics, result, string(reason)); got != 0 {
			t.Errorf("%s %s is %v at the start", result, reason, got)
		}
	}
	for _, reason := range []string{"Undecodable", "NamespaceUnknown", "Panic"} {
		if got := count(t, s.metrics, "failed", reason); got != 0 {
			t.Errorf("failed %s is %v at the start", reason, got)
		}
	}
	response := s.review(t, createPod(t, &corev1.Pod{}, "demo"))
	if got := count(t, s.metrics, "injected", "Injected"); got != 1 {
		t.Errorf("injected %v, want 1", got)
	}
	s.review(t, createPod(t, &corev1.Pod{Spec: corev1.PodSpec{HostNetwork: true}}, "demo")) // skipped: timed, without a patch
	size := histogram(t, s.metrics, "shunt_webhook_patch_size_bytes")
	if size.GetSampleCount() != 1 || size.GetSampleSum() != float64(len(response.Patch)) {
		t.Errorf("patch size: %d samples, sum %v; want one of %d bytes", size.GetSampleCount(), size.GetSampleSum(), len(response.Patch))
	}
	took := histogram(t, s.metrics, "shunt_webhook_duration_seconds")
	if took.GetSampleCount() != 2 || took.GetSampleSum() <= 0 {
		t.Errorf("duration: %d samples, sum %v; want two", took.GetSampleCount(), took.GetSampleSum())
	}
}

// TestBuckets checks that the buckets separate usual values: times of 0.1 ms to 1 s, and sizes of
// patches of which a plain pod's is neither in the first nor in the last bucket.
func TestBuckets(t *testing.T) {
	s := serve(t, config.Default(), enabledNamespace(), logr.Discard())
	s.review(t, createPod(t, &corev1.Pod{}, "demo"))
	took := histogram(t, s.metrics, "shunt_webhook_duration_seconds").GetBucket()
	if first, last := took[0].GetUpperBound(), took[len(took)-1].GetUpperBound(); first != 1e-4 || last != 1 {
		t.Errorf("duration's buckets are from %v to %v s, want 0.0001 to 1", first, last)
	}
	size := histogram(t, s.metrics, "shunt_webhook_patch_size_bytes").GetBucket()
	if size[0].GetCumulativeCount() != 0 || size[len(size)-3].GetCumulativeCount() != 1 {
		t.Errorf("the patch of a plain pod is in an outer bucket: %v", size)
	}
}

// count returns the value of shunt_webhook_requests_total. A missing series fails the test.
func count(t *testing.T, metrics *webhook.Metrics, result, reason string) float64 {
	t.Helper()
	return series(t, metrics, "shunt_webhook_requests_total", map[string]string{"result": result, "reason": reason}).
		GetCounter().GetValue()
}

func histogram(t *testing.T, metrics *webhook.Metrics, name string) *dto.Histogram {
	t.Helper()
	return series(t, metrics, name, nil).GetHistogram()
}

// series returns the series of a metric with the given labels.
func series(t *testing.T, metrics *webhook.Metrics, name string, labels map[string]string) *dto.Metric {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(metrics)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if family.GetName() == name && hasLabels(metric, labels) {
				return metric
			}
		}
	}
	t.Fatalf("no series of %s with %v", name, labels)
	return nil
}

func hasLabels(metric *dto.Metric, want map[string]string) bool {
	got := map[string]string{}
	for _, label := range metric.GetLabel() {
		got[label.GetName()] = label.GetValue()
	}
	for name, value := range want {
		if got[name] != value {
			return false
		}
	}
	return true
}
