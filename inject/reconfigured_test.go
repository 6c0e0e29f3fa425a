package inject_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/config"
)

// others are configurations that a pod may meet after it was injected.
var others = map[string]func(*config.Config){
	"pull secrets":           func(c *config.Config) { c.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "z"}, {Name: "own"}} },
	"no pull secrets":        func(c *config.Config) { c.ImagePullSecrets = nil },
	"Prometheus annotations": func(c *config.Config) { c.PrometheusAnnotations = true },
	"regular container":      func(c *config.Config) { c.NativeSidecar = config.NativeSidecarDisabled },
	"native order":           func(c *config.Config) { c.NativeSidecar = config.NativeSidecarEnabled },
	"regular, without hold": func(c *config.Config) {
		c.NativeSidecar, c.HoldApplicationUntilProxyStarts = config.NativeSidecarDisabled, false
	},
	"none": func(c *config.Config) { c.PrometheusAnnotations = false },
}

// TestReconfigured: a pod that one configuration has injected becomes, by
// another one, what that would have made of it at first, and the patch says so.
func TestReconfigured(t *testing.T) {
	ran := 0
	names := slices.Sorted(maps.Keys(others))
	for i, c := range loadCases(t) {
		first := inject.Inject(c.Pod, c.Namespace, c.Config)
		if _, before := inject.Restore(c.Pod); !first.Inject || before {
			continue
		}
		for j := range 3 { // they take turns
			name, cfg := names[(i+j)%len(names)], c.Config
			others[name](&cfg)
			want := inject.Inject(c.Pod, c.Namespace, cfg)
			got := inject.Inject(first.Pod, c.Namespace, cfg)
			if !got.Inject && cmp.Equal(first.Pod, want.Pod, samePod) {
				continue // it says what the first does
			}
			ran++
			if diff := cmp.Diff(want.Pod, got.Pod, samePod); diff != "" {
				t.Errorf("%s, then %s: %s (-at first +afterwards):\n%s", c.Name, name, got.Reason, diff)
				continue
			}
			checkPatch(t, inject.NewInjector(cfg), first.Pod, c.Namespace, got.Pod)
		}
	}
	if ran < 50 {
		t.Errorf("only %d pods met another configuration", ran)
	}
}
