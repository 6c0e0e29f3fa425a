package annotation

import (
	"slices"
	"strings"
	"testing"
)

// TestNoKeyIsBothReadAndIdle: a key that gets a row in the table of annotations
// must leave that of the keys without effect.
func TestNoKeyIsBothReadAndIdle(t *testing.T) {
	for key, reason := range unsupportedKeys {
		if slices.ContainsFunc(table, func(row Row) bool { return strings.EqualFold(row.Key, key) }) {
			t.Errorf("%s has a row, and yet is without effect: %s", key, reason)
		}
	}
}
