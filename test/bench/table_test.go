package bench_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/test/bench"
)

func TestTable(t *testing.T) {
	ms := time.Millisecond
	got := bench.Table([]bench.Result{
		{Setting: "a", Way: "slow", Processes: 6, Rounds: bench.Rounds{
			{CPU: 5 * ms, Wall: 70 * ms, Floor: 9 * ms}, {CPU: 50 * ms, Wall: 7 * ms, Floor: ms}, {CPU: 4 * ms, Wall: ms, Floor: 2 * ms},
		}},
		{Setting: "a", Way: "bare", Processes: 2, Rounds: bench.Rounds{
			{CPU: 2540 * time.Microsecond, Wall: ms, Floor: 2540 * time.Microsecond},
		}},
	})
	want := `| rules | way | processes | CPU ms | of the floor | wall ms |
|---|---|--:|--:|--:|--:|
| a | slow | 6 | 5.0 | 2.50 | 7.0 |
| a | bare | 2 | 2.5 | 1.00 | 1.0 |
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
