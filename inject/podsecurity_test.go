package inject_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	psa "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/cases"
	"github.com/shunt-dev/shunt/inject/config"
)

// TestPodSecurity checks, with the library that API servers use, the strictest level that an injected
// pod meets whose own containers meet them all.
func TestPodSecurity(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from     config.InterceptFrom
		mode     string
		strictly psa.Level
	}{
		{config.InterceptFromPod, "REDIRECT", psa.LevelPrivileged},
		{config.InterceptFromPod, "TPROXY", psa.LevelPrivileged},
		{config.InterceptFromPod, "NONE", psa.LevelRestricted},
		{config.InterceptFromNode, "REDIRECT", psa.LevelRestricted},
		{config.InterceptFromNode, "TPROXY", psa.LevelPrivileged},
		{config.InterceptFromNode, "NONE", psa.LevelRestricted},
	} {
		for _, native := range []config.NativeSidecar{config.NativeSidecarEnabled, config.NativeSidecarDisabled} {
			pod := cases.Small()
			pod.Annotations = map[string]string{annotation.InterceptionModeKey: c.mode}
			pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
				RunAsNonRoot: new(true), AllowPrivilegeEscalation: new(false),
				Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			}
			cfg := config.Default()
			cfg.InterceptFrom, cfg.NativeSidecar = c.from, native
			for _, level := range []psa.Level{psa.LevelBaseline, psa.LevelRestricted} {
				ns := annotation.Namespace{Name: "demo", Labels: map[string]string{
					annotation.NamespaceInjectionKey: "enabled", psa.EnforceLevelLabel: string(level),
				}}
				unchecked := cfg
				unchecked.CheckPodSecurity = false
				injected := inject.Inject(pod, ns, unchecked).Pod
				version := psa.LevelVersion{Level: level, Version: psa.LatestVersion()}
				verdict := policy.AggregateCheckResults(evaluator.EvaluatePod(version, &injected.ObjectMeta, &injected.Spec))
				if want := psa.CompareLevels(c.strictly, level) >= 0; verdict.Allowed != want {
					t.Errorf("%s from the %s (native sidecar %s) at %s: allowed %v, want %v: %s",
						c.mode, c.from, native, level, verdict.Allowed, want, verdict.ForbiddenDetail())
				}
				// The injector denies what the API server would, and nothing else.
				if denied := inject.Inject(pod, ns, cfg).Denied(); denied == verdict.Allowed {
					t.Errorf("%s from the %s at %s: denied %v, by the API server %v", c.mode, c.from, level, denied, !verdict.Allowed)
				}
			}
		}
	}
}
