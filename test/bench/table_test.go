package bench_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/test/bench"
)

func TestTable(t *testing.T) {
	got := bench.Table([]bench.Result{
		{Setting: "a", Way: "slow", Processes: 6, CPU: 5 * time.Millisecond, Wall: 7 * time.Millisecond},
		{Setting: "a", Way: "bare", Processes: 2, CPU: 2 * time.Millisecond, Wall: 2540 * time.Microsecond},
		{Setting: "b", Way: "slow", Processes: 1, CPU: time.Millisecond, Wall: time.Millisecond},
	}, "bare")
	want := `| rules | way | processes | CPU ms | of the floor | wall ms |
|---|---|--:|--:|--:|--:|
| a | slow | 6 | 5.0 | 2.50 | 7.0 |
| a | bare | 2 | 2.0 | 1.00 | 2.5 |
| b | slow | 1 | 1.0 | - | 1.0 |
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestMedian(t *testing.T) {
	durations := []time.Duration{9, 1, 5}
	if got := bench.Median(durations); got != 5 {
		t.Errorf("median of 9, 1, 5: %d", got)
	}
	if durations[0] != 9 {
		t.Error("Median has sorted its argument")
	}
}
