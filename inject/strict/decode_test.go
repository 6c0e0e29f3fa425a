package strict_test

import (
	"testing"

	"github.com/shunt-dev/shunt/inject/strict"
)

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"", "abc", 3},
		{"inject", "inject", 0},
		{"port", "ports", 1},
		{"kitten", "sitting", 3},
		{"duratoin", "duration", 2},
	} {
		if there, back := strict.Distance(c.a, c.b), strict.Distance(c.b, c.a); there != c.want || back != c.want {
			t.Errorf("distance of %q and %q is %d, and back %d, want %d", c.a, c.b, there, back, c.want)
		}
	}
}
