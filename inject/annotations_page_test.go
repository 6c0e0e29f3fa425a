package inject_test

import (
	"fmt"
	"os"
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

<!-- Written by make generate from the table in inject/annotations.go; change that. -->

Every key that the injector reads on a pod or its namespace. A pod's annotations are, in a Deployment, those of its
` + "`spec.template.metadata.annotations`" + `. Of two places the later one wins. So a setting on the namespace holds for
every pod of it that has no annotation of its own; then comes the injector's configuration, then the default.
` + "`shunt inject --explain`" + ` says for each setting of a pod where it came from.

A value that is not accepted refuses the pod, and all such values are named at once, each with the key, the value and what is
accepted; on a namespace (` + "`namespace.metadata.annotations[…]`" + `) it refuses every pod that it would hold for. Of a namespace's
labels it counts as absent, with a warning. A
namespace is not written with one pod in mind: its ` + "`drainDuration`" + ` is lowered where a pod's grace period is shorter,
as that of the configuration is, and what it says of interception is passed over where a pod wants none (` + "`NONE`" + `).
A change of it holds for pods that are made a moment later.

An unknown key under ` + "`sidecar.istio.io`, `traffic.sidecar.istio.io`, `proxy.istio.io` or `shunt.dev`" + ` is warned about,
with the nearest known one, and so is a key of Istio's on which Shunt does not act, with the reason. One key is refused for its
capitals, too: ` + "`sidecar.istio.io/inject`" + `, because the pod would do without the proxy that it asks for.

| key | where | sets | values | default |
|---|---|---|---|---|
`

func page(rows []annotation.Row) string {
	var text strings.Builder
	text.WriteString(pageHead)
	for _, row := range rows {
		fmt.Fprintf(&text, "| `%s` | %s | %s | %s | %s |\n",
			row.Key, places(row), cell(row.Sets), cell(row.Accepted), cell(row.Default))
	}
	return text.String()
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
