package annotation

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/inject/podplan"
)

var update = flag.Bool("update", false, "write the variables of the policies")

// TestPolicies checks that the policies in config have the keys of the table; with -update it
// writes them there.
func TestPolicies(t *testing.T) {
	for file, names := range map[string][]string{
		"workloads.yaml":  {"prefixes", "podAnnotations", "podLabels", "ignored", "names"},
		"namespaces.yaml": {"prefixes", "namespaceAnnotations", "namespaceLabels", "podLabels", "ignored", "names"},
	} {
		t.Run(file, func(t *testing.T) {
			path := "../../config/policies/" + file
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			const first, last = "from inject/annotation's table.\n", "  # The end of what"
			head, rest, begins := strings.Cut(string(got), first)
			_, tail, ends := strings.Cut(rest, last)
			if !begins || !ends {
				t.Fatalf("%s has no lines %q and %q", path, first, last)
			}
			want := head + first + variables(t, names) + last + tail
			diff := cmp.Diff(want, string(got))
			switch {
			case diff == "":
			case *update:
				if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
					t.Fatal(err)
				}
			default:
				t.Errorf("%s is not what make generate writes (-want +got):\n%s", path, diff)
			}
		})
	}
}

// variables returns variables of a policy, in CEL.
func variables(t *testing.T, names []string) string {
	t.Helper()
	quoted := func(texts []string) []string {
		for i, text := range texts {
			texts[i] = "'" + text + "'"
		}
		return texts
	}
	list := func(texts []string) string { return "[" + strings.Join(quoted(texts), ",\n      ") + "]" }
	in := func(place Place) (keys []string) {
		for _, row := range table {
			if row.Key != podplan.StatusKey && slices.Contains(row.Places, place) {
				keys = append(keys, row.Key)
			}
		}
		slices.Sort(keys)
		return keys
	}
	byName := map[string]string{} // the name is the part after the slash
	for _, key := range in(PodAnnotation) {
		_, name, _ := strings.Cut(strings.ToLower(key), "/")
		if other, twice := byName[name]; twice {
			t.Errorf("%s and %s have the same name: neither can be suggested for it", key, other)
		}
		byName[name] = key
	}
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		pairs = append(pairs, fmt.Sprintf("'%s': '%s'", name, byName[name]))
	}
	all := map[string]string{
		"prefixes":             list(slices.Clone(ownPrefixes)),
		"podAnnotations":       list(in(PodAnnotation)),
		"podLabels":            list(in(PodLabel)),
		"namespaceAnnotations": list(in(NamespaceAnnotation)),
		"namespaceLabels":      list(in(NamespaceLabel)),
		"ignored":              list(append(slices.Sorted(maps.Keys(unsupportedKeys)), podplan.StatusKey)),
		"names":                "{" + strings.Join(pairs, ",\n      ") + "}",
	}
	var text strings.Builder
	for _, name := range names {
		fmt.Fprintf(&text, "  - name: %s\n    expression: >-\n      %s\n", name, all[name])
	}
	return text.String()
}
