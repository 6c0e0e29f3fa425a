package annotation

import (
	"slices"
	"strings"
	"testing"
)

// TestNoKeyIsBothReadAndIdle: a key with a row in the table must not be in
// unsupportedKeys.
func TestNoKeyIsBothReadAndIdle(t *testing.T) {
	for key, reason := range unsupportedKeys {
		if slices.ContainsFunc(table, func(row Row) bool { return strings.EqualFold(row.Key, key) }) {
			t.Errorf("%s has a row, and is in unsupportedKeys: %s", key, reason)
		}
	}
}
