package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDocs runs the command lines that docs/trace.md shows, "    $ shunt …", and
// holds what is printed to the block below each; -update writes it. The diagram is
// that of the default rules.
func TestDocs(t *testing.T) {
	const page = "../../docs/trace.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	shown, block, fence := 0, false, false
	for line := range strings.Lines(string(text)) {
		command, is := strings.CutPrefix(line, "    $ shunt ")
		switch {
		case is:
			got.WriteString(line + indented(printed(t, strings.Fields(command)...)))
			block = true
			shown++
		case strings.HasPrefix(line, "```mermaid"):
			got.WriteString(line + printed(t, "trace", "-o", "mermaid"))
			fence = true
			shown++
		case fence && strings.HasPrefix(line, "```"):
			fence = false
			got.WriteString(line)
		case fence, block && (strings.HasPrefix(line, "    ") || line == "\n"):
		default:
			if block {
				got.WriteString("\n")
			}
			block = false
			got.WriteString(line)
		}
	}
	if shown != 3 {
		t.Errorf("%d outputs are shown, want 3", shown)
	}
	if *update {
		if err := os.WriteFile(page, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(text), got.String()); diff != "" {
		t.Errorf("(-page +printed; go test ./cmd/shunt -run TestDocs -update writes it):\n%s", diff)
	}
}

func printed(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if err := run(t.Context(), "shunt", args, strings.NewReader(""), &stdout, &stderr); err != nil {
		t.Fatalf("%q: %v, %s", args, err, stderr.String())
	}
	return stdout.String()
}

func indented(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if line != "\n" {
			b.WriteString("    ")
		}
		b.WriteString(line)
	}
	return b.String()
}
