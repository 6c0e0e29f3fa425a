package source

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestLinks holds that a folder is read as a mounted ConfigMap has it, whose
// files are links, and that a link in a folder leads nowhere else.
func TestLinks(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, dir := range []string{"mounted/..2026", "elsewhere"} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"mounted/..2026/a.yaml", "elsewhere/b.yaml"} {
		if err := os.WriteFile(file, []byte("a: 1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{
		"mounted/..data": "..2026", "mounted/a.yaml": "..data/a.yaml", // as kubelet writes it
		"elsewhere/c.yaml": ".", "elsewhere/up": "..", "link": "mounted",
	} {
		if err := os.Symlink(to, from); err != nil {
			t.Skipf("this file system has no links: %v", err)
		}
	}
	for _, test := range []struct {
		source Files
		want   []string
	}{
		{Files{Names: []string{"mounted"}}, []string{"mounted/a.yaml"}},
		{Files{Names: []string{"link"}}, []string{"link/a.yaml"}},
		{Files{Names: []string{"elsewhere"}, Recursive: true}, []string{"elsewhere/b.yaml"}},
	} {
		inputs, err := test.source.Read(strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, in := range inputs {
			got = append(got, filepath.ToSlash(in.Name))
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", test.source, diff)
		}
	}
}
