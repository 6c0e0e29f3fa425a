package main

import (
	"strings"
	"testing"
)

func TestPaint(t *testing.T) {
	const diff = "--- a.yaml\n+++ a.yaml (injected)\n@@ -1,4 +1,4 @@\n kept\n--- removed\n+++ added\n \n\\ No newline at end of file"
	const want = "<1>--- a.yaml<>\n<1>+++ a.yaml (injected)<>\n<36>@@ -1,4 +1,4 @@<>\n kept\n<31>--- removed<>\n" +
		"<32>+++ added<>\n \n\\ No newline at end of file"
	visible := strings.NewReplacer("\x1b[m", "<>", "\x1b[1m", "<1>", "\x1b[31m", "<31>", "\x1b[32m", "<32>", "\x1b[36m", "<36>")
	if got := visible.Replace(string(paint([]byte(diff)))); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := paint(nil); len(got) > 0 {
		t.Errorf("of nothing: %q", got)
	}
}
