package manifest_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/manifest"
	"github.com/shunt-dev/shunt/inject/config"
)

// TestSamplesAreRestored: every manifest that ships is injected by putting
// lines in, and given back byte for byte.
func TestSamplesAreRestored(t *testing.T) {
	changed := 0
	err := filepath.WalkDir("../../../../config/samples", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		docs := manifest.Split(path, text)
		var restored []byte
		for _, doc := range docs {
			injected, err := manifest.Injector{Config: config.Default(), Namespace: "default"}.Inject(doc)
			if err != nil {
				return err
			}
			if !bytes.Equal(injected.Document.Text, doc.Text) {
				changed++
			}
			back, err := manifest.Restorer{Namespace: "default"}.Restore(split(t, injected.Document.Text)[0])
			if err != nil {
				return err
			}
			restored = append(restored, back.Document.Text...)
		}
		if !bytes.Equal(text, restored) {
			t.Errorf("%s: given back as\n%s", path, restored)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if changed < 3 {
		t.Errorf("only %d objects were injected", changed)
	}
}
