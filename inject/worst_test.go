//go:build !race

// The race detector allocates, too: make verify runs these without it.

package inject_test

import (
	"runtime"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/cases"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
)

const (
	// worstSize is that of the largest object that an API server takes.
	worstSize = 3 << 20
	// longestAnnotations is what Kubernetes takes of them: a pod with more is
	// refused without a look at them.
	longestAnnotations = 250_000
)

// BenchmarkWorst is the injector's part of the answer for the pods that make
// most work. Its time is the processors', not the clock's.
func BenchmarkWorst(b *testing.B) {
	injector := inject.NewInjector(config.Default())
	for _, worst := range cases.WorstPods() {
		b.Run(worst.Name, func(b *testing.B) {
			pods := []*corev1.Pod{worst.Pod(worstSize), worst.Pod(longestAnnotations)}
			b.ReportAllocs()
			start := cases.ProcessorTime()
			for b.Loop() {
				for _, pod := range pods {
					operations := injector.Inject(pod, enabled).Operations
					podplan.EncodePatch(operations)
				}
			}
			b.ReportMetric(float64((cases.ProcessorTime()-start).Milliseconds())/float64(b.N), "cpu-ms/op")
		})
	}
}

// allocated is how much an injection takes of memory, freed or not.
func allocated(injector *inject.Injector, pod *corev1.Pod) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	operations := injector.Inject(pod, enabled).Operations
	podplan.EncodePatch(operations)
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestWorst holds that what the worst pods take grows as they do, and is never
// much. The time is generous: what is quadratic takes minutes.
func TestWorst(t *testing.T) {
	const (
		mostBytes = 64 << 20
		mostTime  = 3 * time.Second
	)
	injector := inject.NewInjector(config.Default())
	for _, worst := range cases.WorstPods() {
		t.Run(worst.Name, func(t *testing.T) {
			for _, size := range []int{longestAnnotations, worstSize} {
				half, pod := allocated(injector, worst.Pod(size/2)), worst.Pod(size)
				start := cases.ProcessorTime()
				whole := allocated(injector, pod)
				took := cases.ProcessorTime() - start
				t.Logf("%d bytes: %.2f MB, of half the size %.2f MB, %v", size, float64(whole)/1e6, float64(half)/1e6, took)
				if whole > mostBytes || took > mostTime {
					t.Errorf("%d bytes: %d bytes are allocated in %v, want %d and %v at most", size, whole, took, mostBytes, mostTime)
				}
				if whole > 2<<20 && whole*10 > half*23 {
					t.Errorf("%d bytes: %d bytes are allocated, and %d of half the size: it grows faster than the pod", size, whole, half)
				}
			}
		})
	}
}
