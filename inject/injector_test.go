package inject_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/inject"
)

// TestInjectorIsForManyPods: what an Injector makes once is the same that is
// made for a single pod, and stays as it is whatever is done to the pods that
// it was put into.
func TestInjectorIsForManyPods(t *testing.T) {
	for _, c := range loadCases(t) {
		want := inject.Inject(c.Pod, c.Namespace, c.Config)
		injector := inject.NewInjector(c.Config)
		for range 2 {
			got := injector.Inject(c.Pod, c.Namespace)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: by itself and by an Injector differ (-itself +Injector):\n%s", c.Name, diff)
			}
			if got.Pod == nil {
				continue
			}
			for i := range got.Pod.Spec.InitContainers {
				made := &got.Pod.Spec.InitContainers[i]
				clear(made.Args)
				clear(made.Env)
				clear(made.VolumeMounts)
				clear(made.Resources.Limits)
				if made.SecurityContext != nil {
					made.SecurityContext.RunAsUser = nil
				}
			}
			clear(got.Pod.Spec.Volumes)
		}
	}
}
