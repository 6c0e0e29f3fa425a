package inject_test

import (
	"slices"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/cases"
	"github.com/shunt-dev/shunt/inject/config"
)

// TestExplainNamesEveryAnnotation: in every case that is injected, each
// annotation that sets something is where exactly one setting comes from: the
// pod's, or the namespace's where the pod has none. What the pod's mode or proxy
// has no use of is not told.
func TestExplainNamesEveryAnnotation(t *testing.T) {
	for _, c := range loadCases(t) {
		got := inject.Explain(c.Pod, c.Namespace, c.Config, nil)
		result := inject.Inject(c.Pod, c.Namespace, c.Config)
		if result.Reason != got.Reason {
			t.Errorf("%s: explained as %s, decided as %s", c.Name, got.Reason, result.Reason)
		}
		if injected := got.Inject || got.Reason == inject.ReasonAlreadyInjected; !injected {
			if got.Settings != nil {
				t.Errorf("%s: %s, and has settings", c.Name, got.Reason)
			}
			continue
		}
		for _, row := range annotation.Table() {
			if row.Key == annotation.ProxyConfigKey {
				continue // which may set several fields, or none
			}
			want := map[string]int{"pod annotation": 0, "namespace annotation": 0}
			if place := placeOf(c, row); place != "" && !idle(c, row, result.Plan.Mode) {
				want[place]++
			}
			for place, times := range want {
				if found := settingsFrom(got.Settings, place+" "+row.Key); found != times {
					t.Errorf("%s: %d settings are from the %s %s, want %d", c.Name, found, place, row.Key, times)
				}
			}
		}
	}
}

// placeOf is where a case has the key of a setting, of two places the one that
// counts.
func placeOf(c cases.Case, row annotation.Row) string {
	_, ofPod := c.Pod.Annotations[row.Key]
	_, ofNamespace := c.Namespace.Annotations[row.Key]
	switch {
	case !slices.Contains(row.Places, annotation.NamespaceAnnotation):
		return ""
	case ofPod:
		return "pod annotation"
	case ofNamespace:
		return "namespace annotation"
	default:
		return ""
	}
}

// idle reports whether a case's proxy, or a pod without interception, has no
// use of a key.
func idle(c cases.Case, row annotation.Row, mode interception.Mode) bool {
	return row.Envoy && c.Config.Sidecar.Type == config.SidecarCustom ||
		row.Flag != "" && row.Field == "" && mode == interception.ModeNone && row.Key != annotation.InterceptionModeKey
}

func settingsFrom(settings []inject.Setting, from string) int {
	found := 0
	for _, s := range settings {
		if slices.Contains(s.From, from) {
			found++
		}
	}
	return found
}

// TestEveryFieldIsExplained: each setting has a name of its own and an origin,
// and each annotation that stands in for a field of the configuration says
// which.
func TestEveryFieldIsExplained(t *testing.T) {
	got := inject.Explain(cases.Small(), enabled, config.Default(), nil)
	seen := map[string]bool{}
	for _, s := range got.Settings {
		if seen[s.Name] || s.Name == "" {
			t.Errorf("%q is there twice, or has no name", s.Name)
		}
		seen[s.Name] = true
		if !slices.Equal(s.From, []string{"default"}) {
			t.Errorf("%s: of a pod and a configuration that say nothing, from %v", s.Name, s.From)
		}
	}
	for _, row := range annotation.Table() {
		if row.Field != "" && !seen[row.Field] {
			t.Errorf("%s stands in for %s, which is no setting", row.Key, row.Field)
		}
	}
}
