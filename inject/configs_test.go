package inject_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"github.com/shunt-dev/shunt/inject"
)

// TestConfigCases reads the configurations of testdata/configs: config.yaml,
// and in want.txt a line for each error that it is refused with, or the word
// accepted.
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
			_, err = inject.ParseConfig(archive.Files[0].Data)
			got := verdict(err)
			if *update {
				archive.Files = []txtar.File{archive.Files[0], {Name: "want.txt", Data: []byte(got)}}
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if len(archive.Files) != 2 || archive.Files[1].Name != "want.txt" {
				t.Fatal("the second of two files is not want.txt")
			}
			if diff := cmp.Diff(string(archive.Files[1].Data), got); diff != "" {
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
