package source

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/manifest"
)

// Endings are the file names that are read in a folder, as kubectl does.
var Endings = []string{".json", ".yaml", ".yml"}

// Files are the manifests that the user names.
type Files struct {
	Names     []string
	Recursive bool
}

// AddFlags adds the flags that name them.
func (f *Files) AddFlags(fs *pflag.FlagSet) {
	fs.StringArrayVarP(&f.Names, "filename", "f", nil,
		"manifest file, folder of them (*"+strings.Join(Endings, ", *")+"), or - for stdin; can be repeated")
	fs.BoolVarP(&f.Recursive, "recursive", "R", false, "read subfolders too")
}

// Check returns an error if no file is named.
func (f *Files) Check() error {
	if len(f.Names) == 0 {
		return errors.New("--filename: Required value; accepted: a file, a folder, or - for stdin")
	}
	return nil
}

// Input is a file as the user named it.
type Input struct {
	Name string
	Docs []manifest.Document
}

// Read opens every file, in the order of the flags; those of a folder in that
// of their names. "-" is stdin, and can be named once.
func (f *Files) Read(stdin io.Reader) ([]Input, error) {
	var all []Input
	for _, name := range f.Names {
		if name == "-" {
			text, err := io.ReadAll(stdin)
			if all, err = appendInput(all, "stdin", text, err); err != nil {
				return nil, err
			}
			stdin = EOF{}
			continue
		}
		files, err := f.files(name)
		if err != nil {
			return nil, fmt.Errorf("read manifests: %w", err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if all, err = appendInput(all, file, text, err); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// appendInput takes what reading a file gave.
func appendInput(all []Input, name string, text []byte, err error) ([]Input, error) {
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	return append(all, Input{name, manifest.Split(name, text)}), nil
}

// files returns the name itself, or the manifests of the folder of that name.
func (f *Files) files(name string) ([]string, error) {
	about, err := os.Stat(name)
	if err != nil || !about.IsDir() {
		return []string{name}, err
	}
	files, err := f.folder(name)
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s: no manifest in this folder; accepted: *%s", name, strings.Join(Endings, ", *"))
		if !f.Recursive {
			err = fmt.Errorf("%w; --recursive reads its subfolders too", err)
		}
	}
	return files, err
}

// OfFolder reports whether any of the names is a folder's.
func (f *Files) OfFolder() bool {
	return slices.ContainsFunc(f.Names, func(name string) bool {
		about, err := os.Stat(name)
		return err == nil && about.IsDir()
	})
}

// folder lists the manifests of a folder. A link to a file is read, as a
// mounted ConfigMap has them; one to a folder is not followed, and so none
// can lead in a circle.
func (f *Files) folder(name string) ([]string, error) {
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, entry := range entries {
		path := filepath.Join(name, entry.Name())
		if entry.IsDir() {
			if f.Recursive {
				below, err := f.folder(path)
				if err != nil {
					return nil, err
				}
				files = append(files, below...)
			}
			continue
		}
		if !slices.Contains(Endings, filepath.Ext(path)) {
			continue
		}
		about, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if !about.IsDir() {
			files = append(files, path)
		}
	}
	return files, nil
}

// EOF takes the place of stdin once it has been read.
type EOF struct{}

// Read fails.
func (EOF) Read([]byte) (int, error) {
	return 0, errors.New("stdin was read already; accepted: - once")
}
