package inject_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/cases"
	"github.com/shunt-dev/shunt/inject/config"
)

var enabled = annotation.Namespace{Name: "demo", Labels: map[string]string{annotation.NamespaceInjectionKey: "enabled"}}

// BenchmarkInject is what the webhook adds to the creation of a pod with one
// container, before the request is decoded and after the patch is made.
func BenchmarkInject(b *testing.B) { benchmarkInject(b, config.Default()) }

// BenchmarkInjectCustom is the same with a sidecar of the user's.
func BenchmarkInjectCustom(b *testing.B) {
	cfg := config.Default()
	cfg.Sidecar = config.Sidecar{
		Type: config.SidecarCustom,
		Container: &corev1.Container{
			Image: "haproxy", VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/etc/haproxy"}},
		},
		Volumes: []corev1.Volume{{Name: "config"}},
	}
	benchmarkInject(b, cfg)
}

func benchmarkInject(b *testing.B, cfg config.Config) {
	pod, injector := cases.Small(), inject.NewInjector(cfg)
	b.ReportAllocs()
	for b.Loop() {
		if result := injector.Inject(pod, enabled); !result.Inject {
			b.Fatal(result.Reason)
		}
	}
}

// BenchmarkSkip is the same for a pod that is left alone.
func BenchmarkSkip(b *testing.B) {
	pod, injector := cases.Small(), inject.NewInjector(config.Default())
	b.ReportAllocs()
	for b.Loop() {
		if result := injector.Inject(pod, annotation.Namespace{}); result.Inject {
			b.Fatal(result.Reason)
		}
	}
}
