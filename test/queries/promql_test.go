package queries

import (
	"fmt"
	"testing"
)

// TestReadQueryFindsWhatIsWrong checks that Check can fail.
func TestReadQueryFindsWhatIsWrong(t *testing.T) {
	for _, text := range []string{
		`sum(rate(x_total[5m])`, `x{a=b}`, `x{a}`, `rate(x_total[5])`, `deriv(x[5m])`, `x{a="b"`, `1 > 2`, `"x"`, `x[$interval]`,
	} {
		if q, err := readQuery(text); err == nil {
			t.Errorf("%s is taken for %v", text, q)
		}
	}
	q, err := readQuery(`sum by (c) (rate(x_total{a="1",b=~"{\"2}"}[5m])) > 2 * scalar(y) unless z offset 1h`)
	want := `{map[x_total:[a b] y:[] z:[]] [c]}`
	if got := fmt.Sprint(q); err != nil || got != want {
		t.Errorf("error %v, query %s, want %s", err, got, want)
	}
}

func TestWrongIn(t *testing.T) {
	there := map[string][]string{"x_total": {"a"}}
	for query, want := range map[string]string{
		`sum by (a, pod) (rate(x_total{a="1",node="n"}[5m]))`: "[]",
		`y_total`:              "[there is no metric y_total]",
		`x_total{b="1"}`:       "[x_total has no label b]",
		`sum by (b) (x_total)`: "[grouped by b, which is no label]",
		`deriv(x_total[5m])`:   "[unknown function deriv]",
	} {
		if got := fmt.Sprint(wrongIn(query, there)); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}
