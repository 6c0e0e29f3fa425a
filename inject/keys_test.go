package inject

import (
	"slices"
	"strings"
	"testing"
)

// TestNoKeyIsBothReadAndIdle: a key that gets a row in the table of annotations
// must leave that of the keys without effect.
func TestNoKeyIsBothReadAndIdle(t *testing.T) {
	for key, reason := range idle {
		if slices.ContainsFunc(annotations, func(row Annotation) bool { return strings.EqualFold(row.Key, key) }) {
			t.Errorf("%s has a row, and yet is without effect: %s", key, reason)
		}
	}
}
