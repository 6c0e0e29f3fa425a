package inject_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shunt-dev/shunt/inject"
)

var enabled = inject.Namespace{Name: "demo", Labels: map[string]string{inject.NamespaceInjectionKey: "enabled"}}

func onePod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "echo-"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
}

// BenchmarkInject is what the webhook adds to the creation of a pod with one
// container, before the request is decoded and after the patch is made.
func BenchmarkInject(b *testing.B) {
	pod, cfg := onePod(), inject.DefaultConfig()
	b.ReportAllocs()
	for b.Loop() {
		if result := inject.Inject(pod, enabled, cfg); !result.Inject {
			b.Fatal(result.Reason)
		}
	}
}

// BenchmarkSkip is the same for a pod that is left alone.
func BenchmarkSkip(b *testing.B) {
	pod, cfg := onePod(), inject.DefaultConfig()
	b.ReportAllocs()
	for b.Loop() {
		if result := inject.Inject(pod, inject.Namespace{}, cfg); result.Inject {
			b.Fatal(result.Reason)
		}
	}
}
