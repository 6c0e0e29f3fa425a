package inject_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// sameResult compares results; what units keep to themselves shows in the pod.
var sameResult = cmp.Options{cmpPrefixes, cmpopts.IgnoreUnexported(podplan.Annotations{}, podplan.Resources{})}

// TestInjectorIsForManyPods: what an Injector makes once is the same that is
// made for a single pod, also for the second pod.
func TestInjectorIsForManyPods(t *testing.T) {
	for _, c := range loadCases(t) {
		want := inject.Inject(c.Pod, c.Namespace, c.Config)
		injector := inject.NewInjector(c.Config)
		for range 2 {
			if diff := cmp.Diff(want, injector.Inject(c.Pod, c.Namespace), sameResult); diff != "" {
				t.Errorf("%s: by itself and by an Injector differ (-itself +Injector):\n%s", c.Name, diff)
			}
		}
	}
}
