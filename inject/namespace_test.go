package inject_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/cases"
)

// TestNamespaceAnnotationsHoldAsThePodsOwn: what sets something on a pod has the
// same plan, or the same number of errors, where it stands on the pod's
// namespace. A drain alone is another matter: the namespace's gives way to a
// pod's grace period.
func TestNamespaceAnnotationsHoldAsThePodsOwn(t *testing.T) {
	moved := 0
	for _, c := range loadCases(t) {
		pod, ns := movedToNamespace(c)
		if len(ns.Annotations) == 0 || len(c.Namespace.Annotations) > 0 ||
			ns.Annotations[annotation.ProxyConfigKey] != "" || len(c.Config.ForbiddenAnnotations) > 0 {
			continue
		}
		moved++
		want, got := inject.Inject(c.Pod, c.Namespace, c.Config), inject.Inject(pod, ns, c.Config)
		if diff := cmp.Diff(want.Plan, got.Plan, sameResult); diff != "" {
			t.Errorf("%s: plans differ (-of the pod +of the namespace):\n%s", c.Name, diff)
		}
		if len(want.Errors) != len(got.Errors) {
			t.Errorf("%s: of the pod %v, of the namespace %v", c.Name, want.Errors, got.Errors)
		}
		for _, err := range got.Errors {
			if key := keyIn(err.Field); ns.Annotations[key] != "" && !annotation.OfNamespace(err.Field) {
				t.Errorf("%s: %v is not said to be the namespace's", c.Name, err)
			}
		}
	}
	if moved < 50 {
		t.Errorf("%d cases were tried, want 50 or more", moved)
	}
}

// movedToNamespace are a case's pod without the annotations that can stand on a
// namespace, and its namespace with them.
func movedToNamespace(c cases.Case) (pod *corev1.Pod, ns annotation.Namespace) {
	pod, ns = c.Pod.DeepCopy(), c.Namespace
	ns.Annotations = map[string]string{}
	for _, row := range annotation.Table() {
		if text, present := pod.Annotations[row.Key]; present && slices.Contains(row.Places, annotation.NamespaceAnnotation) {
			delete(pod.Annotations, row.Key)
			ns.Annotations[row.Key] = text
		}
	}
	return pod, ns
}

func keyIn(path string) string {
	_, key, _ := strings.Cut(path, "[")
	key, _, _ = strings.Cut(key, "]")
	return key
}
