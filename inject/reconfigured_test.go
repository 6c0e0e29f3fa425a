package inject_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/inject"
)

// others are configurations that a pod may meet after it was injected.
var others = map[string]func(*inject.Config){
	"pull secrets":           func(c *inject.Config) { c.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "z"}, {Name: "own"}} },
	"no pull secrets":        func(c *inject.Config) { c.ImagePullSecrets = nil },
	"Prometheus annotations": func(c *inject.Config) { c.PrometheusAnnotations = true },
	"classic order":          func(c *inject.Config) { c.NativeSidecar = inject.NativeSidecarDisabled },
	"native order":           func(c *inject.Config) { c.NativeSidecar = inject.NativeSidecarEnabled },
	"classic, without hold": func(c *inject.Config) {
		c.NativeSidecar, c.HoldApplicationUntilProxyStarts = inject.NativeSidecarDisabled, false
	},
	"none": func(c *inject.Config) { c.PrometheusAnnotations = false },
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
