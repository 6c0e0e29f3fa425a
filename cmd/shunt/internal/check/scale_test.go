package check_test

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/check"
)

// large returns a cluster of StatefulSets with ten pods each, which have the proxy and all faults that
// pods and workloads can have.
func large(t *testing.T, workloads int) check.Snapshot {
	t.Helper()
	s := snapshot(t, &txtar.Archive{Files: []txtar.File{{Name: "injected.yaml", Data: []byte(
		"kind: Pod\nmetadata: {name: db-0, namespace: shop}\nspec: {containers: [{name: app, image: app}]}")}}})
	injected := s.Pods[0]
	injected.Spec.InitContainers[0].Image = "shunt-init:older"
	var status corev1.PodStatus
	waits := `initContainerStatuses: [{name: shunt-init, state: {waiting: {reason: ErrImagePull}}}]`
	if err := yaml.Unmarshal([]byte(waits), &status); err != nil {
		t.Fatal(err)
	}
	s.Pods = nil
	for i := range workloads {
		name := fmt.Sprintf("db%d", i)
		s.Workloads = append(s.Workloads, check.Workload{
			Kind: "StatefulSet", Namespace: "shop", Name: name, UID: types.UID(name), Short: true,
			Own:      []check.Metadata{{Annotations: map[string]string{"sidecar.istio.io/logLevel": "debug"}}},
			Template: &check.Metadata{Annotations: map[string]string{"sidecar.istio.io/interceptMode": "TPROXY"}},
		})
		s.Events = append(s.Events, corev1.Event{
			InvolvedObject: corev1.ObjectReference{Kind: "StatefulSet", Namespace: "shop", Name: name, UID: types.UID(name)},
			Message:        `admission webhook "namespace.shunt.dev" denied the request: no`, LastTimestamp: metav1.NewTime(now),
		})
		for k := range 10 {
			pod := *injected.DeepCopy()
			pod.Name, pod.Status = fmt.Sprintf("%s-%d", name, k), status
			pod.OwnerReferences = []metav1.OwnerReference{{Kind: "StatefulSet", Name: name, UID: types.UID(name), Controller: new(true)}}
			s.Pods = append(s.Pods, pod)
		}
	}
	return s
}

// TestLargeCluster checks that each fault of 1,100 pods of 110 workloads is told once for each workload, and
// that a list of workloads has an end.
func TestLargeCluster(t *testing.T) {
	count := map[check.Kind]int{}
	for _, f := range check.Run(large(t, 110)) {
		count[f.Kind]++
		switch {
		case f.Object == "*":
			want := "and 10 more; "
			if f.Kind == check.Ignored { // of which each workload has two
				want = "and 120 more; "
			}
			if !strings.HasPrefix(f.Message, want) {
				t.Errorf("%s: %s, want %s", f.Kind, f.Message, want)
			}
		case f.Kind == check.PodFailing || f.Kind == check.PodOutdated:
			if !strings.Contains(f.Message, "; and 9 more of StatefulSet/shop/db") {
				t.Errorf("%s %s: %s", f.Kind, f.Object, f.Message)
			}
		}
	}
	for _, kind := range []check.Kind{check.PodOutdated, check.PodFailing, check.WorkloadDenied, check.Ignored} {
		if count[kind] != 101 {
			t.Errorf("%d findings are %s, want 100 and one that counts the others", count[kind], kind)
		}
	}
}

// TestLinear checks that a check of twice as many pods and workloads allocates twice as much, and no
// more.
func TestLinear(t *testing.T) {
	allocated := func(s check.Snapshot) float64 {
		return testing.AllocsPerRun(1, func() { check.Run(s) })
	}
	half, whole := allocated(large(t, 20)), allocated(large(t, 40))
	if whole > 2.3*half {
		t.Errorf("%.0f allocations for 400 pods, %.0f for half of them", whole, half)
	}
}
