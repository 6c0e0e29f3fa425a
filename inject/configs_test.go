package inject_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"github.com/shunt-dev/shunt/inject"
)

// TestConfigCases reads the configurations of testdata/configs: config.yaml, files
// beside it, and in want.txt a line for each error that it is refused with, or the
// word accepted.
func TestConfigCases(t *testing.T) {
	files, err := filepath.Glob("testdata/configs/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d cases, error %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(archive.Files) == 0 || archive.Files[0].Name != "config.yaml" {
				t.Fatal("the first file is not config.yaml")
			}
			want := slices.IndexFunc(archive.Files, func(f txtar.File) bool { return f.Name == "want.txt" })
			if want < 0 {
				want, archive.Files = len(archive.Files), append(archive.Files, txtar.File{Name: "want.txt"})
			}
			_, err = inject.ParseConfigFile(archive.Files[0].Data, func(name string) ([]byte, error) {
				for _, f := range archive.Files[1:want] {
					if f.Name == name {
						return f.Data, nil
					}
				}
				return nil, fmt.Errorf("there is no %s", name)
			})
			got := verdict(err)
			if *update {
				archive.Files[want].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want != len(archive.Files)-1 {
				t.Fatal("the last file is not want.txt")
			}
			if diff := cmp.Diff(string(archive.Files[want].Data), got); diff != "" {
				t.Errorf("verdict (-want +got):\n%s", diff)
			}
		})
	}
}

func verdict(err error) string {
	if err == nil {
		return "accepted\n"
	}
	var all utilerrors.Aggregate
	if !errors.As(err, &all) {
		return fmt.Sprintf("error: %v\n", err)
	}
	var text strings.Builder
	for _, wrong := range all.Errors() {
		fmt.Fprintf(&text, "error: %v\n", wrong)
	}
	return text.String()
}
