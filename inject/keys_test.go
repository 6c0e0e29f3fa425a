package inject

import (
	"slices"
	"strings"
	"testing"
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
		if there, back := distance(c.a, c.b), distance(c.b, c.a); there != c.want || back != c.want {
			t.Errorf("distance of %q and %q is %d, and back %d, want %d", c.a, c.b, there, back, c.want)
		}
	}
}

// TestNoKeyIsBothReadAndIdle: a key that gets a row in the table of annotations
// must leave that of the keys without effect.
func TestNoKeyIsBothReadAndIdle(t *testing.T) {
	for key, reason := range idle {
		if slices.ContainsFunc(annotations, func(row Annotation) bool { return strings.EqualFold(row.Key, key) }) {
			t.Errorf("%s has a row, and yet is without effect: %s", key, reason)
		}
	}
}
