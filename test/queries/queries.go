// Package queries reads the PromQL of alerts and dashboards: a file flows in, its
// expressions flow out, or what they ask for and is not there. The tests of the
// webhook's, of the proxies' and of the nodes' agents share it.
package queries

import (
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// Of returns the queries of a YAML or JSON file, sorted: the values of the keys
// "expr" and, for Grafana's variables, "query".
func Of(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var document any
	if err := yaml.UnmarshalStrict(text, &document); err != nil {
		t.Fatal(err)
	}
	var found []string
	var walk func(any)
	walk = func(value any) {
		switch value := value.(type) {
		case map[string]any:
			for key, below := range value {
				if query, is := below.(string); is && (key == "expr" || key == "query" && strings.Contains(query, "(")) {
					found = append(found, query)
				}
				walk(below)
			}
		case []any:
			for _, below := range value {
				walk(below)
			}
		}
	}
	walk(document)
	slices.Sort(found)
	return found
}
