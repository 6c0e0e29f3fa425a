package annotation

import (
	"strings"
	"testing"
)

// TestEveryConfigurationDefaultHasField: a row whose default comes from the
// configuration must name the field. ProxyConfigKey stands in for several.
func TestEveryConfigurationDefaultHasField(t *testing.T) {
	for _, row := range table {
		if row.Key != ProxyConfigKey && row.Field == "" && strings.HasPrefix(row.Default, fromConfiguration) {
			t.Errorf("%s: its default is %q, and its row has no Field", row.Key, row.Default)
		}
	}
}
