package trace

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite testdata")

// TestText prints the paths that matter as a table, and those of IPv4 step by step,
// in both modes and with all that reads DNS.
func TestText(t *testing.T) {
	for name, args := range map[string]string{
		"redirect": "-m REDIRECT", "tproxy": "-m TPROXY", "dns": "-m REDIRECT --redirect-dns --capture-all-dns -x 10.1.0.0/16,fd01::/64 -o 3306",
	} {
		t.Run(name, func(t *testing.T) {
			pod := wanted(t, args)
			pod.Name = args
			paths := Paths(pod)
			var out bytes.Buffer
			answers := []Answer{{Pod: pod, Paths: paths}}
			for _, path := range paths {
				if path.Family == 4 && (name != "dns" || strings.HasPrefix(path.Name, "dns")) {
					answers = append(answers, Answer{Pod: pod, Paths: []Path{path}})
				}
			}
			if err := Text(&out, answers); err != nil {
				t.Fatal(err)
			}
			golden(t, name+".txt", out.Bytes())
		})
	}
}

// TestForms prints one journey in each form, and all paths as a graph.
func TestForms(t *testing.T) {
	pod := wanted(t, "-m TPROXY")
	one := []Answer{{Pod: pod, Paths: []Path{{Family: 4, Journey: ask(t, pod, Outside, "in from=10.0.0.9 tcp 10.0.0.1:8080")}}}}
	all := []Answer{{Pod: pod, Paths: Paths(pod)}}
	for name, answers := range map[string][]Answer{"journey": one, "paths": all} {
		var mermaid, dot bytes.Buffer
		if err := Mermaid(&mermaid, answers); err != nil {
			t.Fatal(err)
		}
		if err := Dot(&dot, answers); err != nil {
			t.Fatal(err)
		}
		golden(t, name+".mmd", mermaid.Bytes())
		golden(t, name+".dot", dot.Bytes())
	}
	text, err := json.MarshalIndent(Document(one), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "journey.json", append(text, '\n'))
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}
