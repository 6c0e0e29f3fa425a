package inject_test

import (
	"encoding/json"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/cases"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// TestPatchMakesThePod: in every case that injects, the patch makes of the
// pod's JSON what the pod becomes, also where the pod was injected before.
func TestPatchMakesThePod(t *testing.T) {
	all, err := cases.Load("testdata/cases")
	if err != nil {
		t.Fatal(err)
	}
	injected := 0
	for _, c := range all {
		in := inject.NewInjector(c.Config)
		result := in.Inject(c.Pod, c.Namespace)
		if !result.Inject {
			continue
		}
		injected++
		t.Run(c.Name, func(t *testing.T) {
			checkPatch(t, in, c.Pod, c.Namespace, result.Pod)
			// Others came after us, and the mode is another now.
			later := result.Pod.DeepCopy()
			later.Spec.InitContainers = append([]corev1.Container{{Name: "earlier"}}, later.Spec.InitContainers...)
			later.Spec.Volumes = append(later.Spec.Volumes, corev1.Volume{Name: "later"})
			for _, mode := range []string{"REDIRECT", "TPROXY", "NONE"} {
				later.Annotations[annotation.InterceptionModeKey] = mode
				if again := in.Inject(later, c.Namespace); again.Inject {
					checkPatch(t, in, later, c.Namespace, again.Pod)
				}
			}
		})
	}
	if injected < 20 {
		t.Errorf("only %d cases are injected", injected)
	}
}

func checkPatch(t *testing.T, in *inject.Injector, pod *corev1.Pod, ns annotation.Namespace, want *corev1.Pod) {
	t.Helper()
	checkMade(t, "patched", pod, in.Inject(pod, ns).Operations, want)
}

// checkMade holds that operations make of a pod's JSON the wanted pod.
func checkMade(t *testing.T, what string, pod *corev1.Pod, operations []podplan.Operation, want *corev1.Pod) {
	t.Helper()
	text := podplan.EncodePatch(operations)
	patch, err := jsonpatch.DecodePatch(text)
	if err != nil {
		t.Fatalf("%s: %v: %s", what, err, text)
	}
	before, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	after, err := patch.Apply(before)
	if err != nil {
		t.Fatalf("%s: %v: %.2000s", what, err, text)
	}
	var got corev1.Pod
	if err := json.Unmarshal(after, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(asMap(t, want), asMap(t, &got)); diff != "" {
		t.Errorf("%s (-the pod +by its patch):\n%s", what, diff)
	}
}

func asMap(t *testing.T, pod *corev1.Pod) (m map[string]any) {
	t.Helper()
	text, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestPatchDoesNotGrow: Istio's has 1,551 operations for such a pod.
func TestPatchDoesNotGrow(t *testing.T) {
	small, large := cases.Small(), cases.Large()
	large.Annotations = map[string]string{"a": "b"}
	large.Spec.InitContainers = []corev1.Container{{Name: "before", Image: "app"}}
	small.Annotations = map[string]string{"a": "b"}
	small.Spec.InitContainers, small.Spec.Volumes = large.Spec.InitContainers[:1], large.Spec.Volumes[:1]
	in := inject.NewInjector(config.Default())
	ofSmall, ofLarge := in.Inject(small, enabled).Operations, in.Inject(large, enabled).Operations
	if len(ofLarge) != len(ofSmall) {
		t.Errorf("%d operations for a large pod, %d for a small one", len(ofLarge), len(ofSmall))
	}
	if a, b := len(podplan.EncodePatch(ofSmall)), len(podplan.EncodePatch(ofLarge)); b != a {
		t.Errorf("%d bytes for a large pod, %d for a small one", b, a)
	}
}

// BenchmarkPatch is pod bytes in, patch bytes out.
func BenchmarkPatch(b *testing.B) {
	in := inject.NewInjector(config.Default())
	for name, pod := range map[string]*corev1.Pod{"one container": cases.Small(), "50 containers": cases.Large()} {
		text, err := json.Marshal(pod)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var pod corev1.Pod
				if err := json.Unmarshal(text, &pod); err != nil {
					b.Fatal(err)
				}
				result := in.Inject(&pod, enabled)
				if len(podplan.EncodePatch(result.Operations)) < 3 {
					b.Fatal(result.Reason)
				}
			}
		})
	}
}
