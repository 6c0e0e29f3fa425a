package inject_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/inject/annotation"
)

const annotationsPage = "../docs/annotations.md"

// TestAnnotationsPage holds docs/annotations.md to the table of keys; with
// -update it writes the page.
func TestAnnotationsPage(t *testing.T) {
	want := page(annotation.Table())
	got, err := os.ReadFile(annotationsPage)
	if err != nil {
		t.Fatal(err)
	}
	diff := cmp.Diff(want, string(got))
	switch {
	case diff == "": // a page that is written anew would have Go run all tests of this package again
	case *update:
		if err := os.WriteFile(annotationsPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is not what make generate writes (-want +got):\n%s", annotationsPage, diff)
	}
}

const pageHead = `# Labels and annotations

<!-- Written by make generate from the table in inject/annotation/table.go; change that. -->

These are all keys that the injector reads on pods and namespaces. In a Deployment, a pod's annotations are those of
` + "`spec.template.metadata.annotations`" + `.

A pod's annotation overrides its namespace's, that overrides the [configuration](configuration.md), and that overrides the default.
` + "`shunt inject --explain`" + ` prints each setting of a pod and its source. A change on a namespace applies to pods that are created
a moment later.

A wrong value denies the pod. The message names all wrong values at once, each with its key and what is accepted. A wrong annotation of a
namespace (` + "`namespace.metadata.annotations[…]`" + `) denies every pod that it would apply to; a wrong label of a namespace counts as
absent, with a warning.

A namespace's value gives way in two cases where a pod's own value is denied: a drain longer than a pod's grace period is lowered, and
settings of interception are ignored for pods in mode ` + "`NONE`" + `.

An unknown key under ` + "`sidecar.istio.io`, `traffic.sidecar.istio.io`, `proxy.istio.io` or `shunt.dev`" + ` produces a warning that names
the nearest known key. So does a key of Istio's that Shunt does not support, with the reason. ` + "`sidecar.istio.io/inject`" + ` with other
capitals denies the pod: it would start without the proxy that it asks for.

`

// page has a table of what stands on pods and namespaces alike, and before it one
// of the other keys, with their places.
func page(rows []annotation.Row) string {
	var others, settings strings.Builder
	for _, row := range rows {
		columns := fmt.Sprintf("%s | %s | %s |\n", cell(row.Sets), cell(row.Accepted), cell(row.Default))
		if slices.Equal(row.Places, []annotation.Place{annotation.NamespaceAnnotation, annotation.PodAnnotation}) {
			fmt.Fprintf(&settings, "| `%s` | %s", row.Key, columns)
		} else {
			fmt.Fprintf(&others, "| `%s` | %s | %s", row.Key, places(row), columns)
		}
	}
	return pageHead +
		"## Which pods are injected\n\n| key | where | sets | values | default |\n|---|---|---|---|---|\n" + others.String() +
		"\n## How they are injected\n\nAnnotations of a pod or a namespace.\n\n" +
		"| annotation | sets | values | default |\n|---|---|---|---|\n" + settings.String()
}

// cell keeps a text from being taken for Markdown.
func cell(text string) string { return strings.NewReplacer("|", `\|`, "*", `\*`).Replace(text) }

func places(row annotation.Row) string {
	all := make([]string, len(row.Places))
	for i, place := range row.Places {
		all[i] = string(place)
	}
	return strings.Join(all, ", ")
}
