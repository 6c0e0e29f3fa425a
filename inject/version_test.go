package inject_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/cases"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// TestStatusSaysModeAndVersion: the status of an injected pod has the mode and
// the version of the program that injected it.
func TestStatusSaysModeAndVersion(t *testing.T) {
	for _, mode := range []string{"REDIRECT", "TPROXY", "NONE"} {
		pod := cases.Small()
		pod.Annotations = map[string]string{annotation.InterceptionModeKey: mode}
		got, _ := podplan.ReadStatus(inject.NewInjector(config.Default()).OfVersion("v1.2.3").Inject(pod, enabled).Pod)
		if string(got.Mode) != mode || got.InjectorVersion != "v1.2.3" {
			t.Errorf("%s: mode %q, version %q", mode, got.Mode, got.InjectorVersion)
		}
	}
	for _, injector := range []*inject.Injector{inject.NewInjector(config.Default()), inject.NewInjector(config.Default()).OfVersion("")} {
		if got, _ := podplan.ReadStatus(injector.Inject(cases.Small(), enabled).Pod); got.InjectorVersion != inject.DevVersion {
			t.Errorf("without a version: %q", got.InjectorVersion)
		}
	}
}

// TestVersionsAgree: a pod that one version has injected is up to date for
// another one with the same settings, and its injection can be undone. A version
// before these fields wrote neither.
func TestVersionsAgree(t *testing.T) {
	for name, edit := range map[string]func(status map[string]any){
		"another version":       func(s map[string]any) { s["injectorVersion"] = "v9.9.9" },
		"no version":            func(s map[string]any) { delete(s, "injectorVersion") },
		"no mode":               func(s map[string]any) { delete(s, "mode") },
		"neither":               func(s map[string]any) { delete(s, "mode"); delete(s, "injectorVersion") },
		"a field of the future": func(s map[string]any) { s["color"] = "blue" },
	} {
		original := cases.Small()
		pod := withStatus(t, inject.Inject(original, enabled, config.Default()).Pod, edit)
		got := inject.NewInjector(config.Default()).OfVersion("v0.1.0").Inject(pod, enabled)
		if got.Reason != inject.ReasonAlreadyInjected || len(got.Warnings) > 0 {
			t.Errorf("%s: %s, warned %q", name, got.Reason, got.Warnings)
		}
		restored, ok := inject.Restore(pod)
		if diff := cmp.Diff(original, restored.Pod(), samePod); !ok || diff != "" {
			t.Errorf("%s: undone %v (-original +undone):\n%s", name, ok, diff)
		}
	}
}

// TestWrongModeIsPutBack: a mode in the status that is not the pod's is no
// evidence for anybody.
func TestWrongModeIsPutBack(t *testing.T) {
	pod := inject.Inject(cases.Small(), enabled, config.Default()).Pod
	forged := withStatus(t, pod, func(s map[string]any) { s["mode"] = "TPROXY" })
	got := inject.Inject(forged, enabled, config.Default())
	if diff := cmp.Diff(pod, got.Pod); diff != "" {
		t.Errorf("%s (-before +after):\n%s", got.Reason, diff)
	}
}

// TestAnotherVersionInjectsAnew: where settings differ as well, the status names
// who injected the pod last.
func TestAnotherVersionInjectsAnew(t *testing.T) {
	pod := inject.NewInjector(config.Default()).OfVersion("v0.1.0").Inject(cases.Small(), enabled).Pod
	cfg := config.Default()
	cfg.ProxyImage = "example.com/envoy:2"
	got := inject.NewInjector(cfg).OfVersion("v0.2.0").Inject(pod, enabled)
	if !got.Inject {
		t.Fatal(got.Reason)
	}
	if text := got.Pod.Annotations[podplan.StatusKey]; !strings.Contains(text, `"v0.2.0"`) || strings.Contains(text, "v0.1.0") {
		t.Error(text)
	}
}

// withStatus returns a copy of a pod whose status is edited as JSON.
func withStatus(t *testing.T, pod *corev1.Pod, edit func(status map[string]any)) *corev1.Pod {
	t.Helper()
	status := map[string]any{}
	if err := json.Unmarshal([]byte(pod.Annotations[podplan.StatusKey]), &status); err != nil {
		t.Fatal(err)
	}
	edit(status)
	text, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	pod = pod.DeepCopy()
	pod.Annotations[podplan.StatusKey] = string(text)
	return pod
}
