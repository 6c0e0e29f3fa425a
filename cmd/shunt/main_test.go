package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/manifest"
	"github.com/shunt-dev/shunt/cmd/shunt/internal/source"
)

var update = flag.Bool("update", false, "rewrite the wanted parts of testdata/cases")

// TestCases runs a command line for each file: args, read as words, its input
// files, and the program's file where it is not bin/shunt; wanted are stdout,
// stderr and the exit code, where it is not 0. Of a case with a file show, a
// regular expression, stdout is wanted as far as its lines match.
func TestCases(t *testing.T) {
	dir, err := filepath.Abs("testdata/cases") // a case runs in a folder of its own
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("cases: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runCase(t, archive)
			if *update {
				archive.Files = slices.Concat(inputs(archive), got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want := archive.Files[len(inputs(archive)):]
			if diff := cmp.Diff(texts(want), texts(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// outputs are the files of a case that -update writes.
var outputs = []string{"stdout", "stderr", "exit"}

func inputs(archive *txtar.Archive) []txtar.File {
	return slices.DeleteFunc(slices.Clone(archive.Files), func(f txtar.File) bool { return slices.Contains(outputs, f.Name) })
}

func texts(files []txtar.File) map[string]string {
	all := map[string]string{}
	for _, f := range files {
		all[f.Name] = string(f.Data)
	}
	return all
}

func runCase(t *testing.T, archive *txtar.Archive) []txtar.File {
	t.Helper()
	t.Chdir(t.TempDir())
	var args []string
	program, stdin := "bin/shunt", ""
	var show *regexp.Regexp
	for _, f := range inputs(archive) {
		switch f.Name {
		case "args":
			args = strings.Fields(string(f.Data))
		case "program":
			program = strings.TrimSpace(string(f.Data))
		case "stdin":
			stdin = string(f.Data)
		case "show":
			show = regexp.MustCompile(strings.TrimSpace(string(f.Data)))
		default:
			if err := os.MkdirAll(filepath.Dir(f.Name), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(f.Name, f.Data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	var stdout, stderr bytes.Buffer
	err := run(t.Context(), calledAs(program), args, strings.NewReader(stdin), &stdout, &stderr)
	if err != nil {
		fmt.Fprintln(&stderr, err)
	}
	printed := ""
	for line := range strings.Lines(stdout.String()) {
		if show == nil || show.MatchString(line) {
			printed += line
		}
	}
	var got []txtar.File
	for i, text := range []string{printed, stderr.String(), fmt.Sprintln(exitCode(err))} {
		if text != "" && text != "0\n" {
			got = append(got, txtar.File{Name: outputs[i], Data: []byte(text)})
		}
	}
	return got
}

// TestUninjectAfterInject gives every kind of workload back byte for byte, by
// the commands as a user pipes them.
func TestUninjectAfterInject(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/cases/inject-every-kind.txtar")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(archive.Files, func(f txtar.File) bool { return f.Name == "all.yaml" })
	// Nothing declines here.
	original := strings.NewReplacer("      hostNetwork: true\n", "", `"false"`, `"true"`).Replace(string(archive.Files[i].Data))
	text := original
	var outputs []string
	for _, command := range []string{"inject", "uninject"} {
		var stdout, stderr bytes.Buffer
		if err := run(t.Context(), "shunt", []string{command, "-f", "-"}, strings.NewReader(text), &stdout, &stderr); err != nil {
			t.Fatal(err)
		}
		text = stdout.String()
		outputs = append(outputs, text)
	}
	if injected := strings.Count(outputs[0], "sidecar.istio.io/status"); injected != len(manifest.Kinds())-1 { // all but Pod
		t.Errorf("%d objects were injected", injected)
	}
	if diff := cmp.Diff(original, outputs[1]); diff != "" {
		t.Errorf("(-before inject +after uninject):\n%s", diff)
	}
}

// TestHelpNamesThePlugin: a line that kubectl's user copies from --help works.
func TestHelpNamesThePlugin(t *testing.T) {
	name := calledAs("/opt/kubectl-shunt")
	for _, command := range append(newRoot(name).Commands(), newRoot(name)) {
		path := strings.TrimSpace(strings.TrimPrefix(command.CommandPath(), name))
		t.Run(path, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if err := run(t.Context(), name, append(strings.Fields(path), "--help"), strings.NewReader(""), &stdout, &stderr); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(stdout.String(), "\n  "+strings.TrimSpace("kubectl shunt "+path)) {
				t.Errorf("no line names the plug-in:\n%s", &stdout)
			}
			for line := range strings.Lines(stdout.String()) {
				if strings.HasPrefix(strings.TrimSpace(line), "shunt ") {
					t.Errorf("the plug-in is not called %q", line)
				}
			}
		})
	}
}

// TestPeopleUndone gives every manifest of the people-* cases back byte for
// byte, but those that are printed anew, or have something replaced that is
// written in another way than Shunt writes it.
func TestPeopleUndone(t *testing.T) {
	anew := map[string]bool{
		"people-json-diff/pod.json":               true, // comes back as YAML
		"people-undo-limits/undo/empty.yaml":      true, // an empty list, and an empty map
		"people-undo-limits/undo/flow.yaml":       true, // printed anew as a whole
		"people-undo-limits/undo/flow-probe.yaml": true, // tcpSocket: {port: 80}
	}
	files, err := filepath.Glob("testdata/cases/people-*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range inputs(archive) {
			name := strings.TrimSuffix(filepath.Base(file), ".txtar") + "/" + f.Name
			if !slices.Contains(source.Endings, filepath.Ext(f.Name)) {
				continue
			}
			seen[name] = true
			var injected, restored bytes.Buffer
			inject := []string{"inject", "-f", "-"}
			if err := run(t.Context(), "shunt", inject, bytes.NewReader(f.Data), &injected, io.Discard); err != nil {
				continue
			}
			if err := run(t.Context(), "shunt", []string{"uninject", "-f", "-"}, &injected, &restored, io.Discard); err != nil {
				t.Errorf("%s: %v", name, err)
			} else if same := bytes.Equal(restored.Bytes(), f.Data); same == anew[name] {
				t.Errorf("%s: same %v, given back as:\n%s", name, same, &restored)
			}
		}
	}
	for name := range anew {
		if !seen[name] {
			t.Errorf("there is no %s", name)
		}
	}
}
