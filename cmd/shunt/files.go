package main

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

// endings lists the file names that are read in a folder, as kubectl does.
var endings = []string{".json", ".yaml", ".yml"}

// sources holds the manifests that the user names.
type sources struct {
	names     []string
	recursive bool
}

func (s *sources) addFlags(fs *pflag.FlagSet) {
	fs.StringArrayVarP(&s.names, "filename", "f", nil,
		"manifest file, folder of them (*"+strings.Join(endings, ", *")+"), or - for stdin; can be repeated")
	fs.BoolVarP(&s.recursive, "recursive", "R", false, "read subfolders too")
}

func (s *sources) check() error {
	if len(s.names) == 0 {
		return errors.New("--filename: Required value; accepted: a file, a folder, or - for stdin")
	}
	return nil
}

// input is a file as the user named it.
type input struct {
	name string
	docs []manifest.Document
}

// read opens every file, in the order of the flags; those of a folder in that
// of their names. "-" is stdin, and can be named once.
func (s *sources) read(stdin io.Reader) ([]input, error) {
	var all []input
	for _, name := range s.names {
		if name == "-" {
			text, err := io.ReadAll(stdin)
			if all, err = appendInput(all, "stdin", text, err); err != nil {
				return nil, err
			}
			stdin = eof{}
			continue
		}
		files, err := s.files(name)
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
func appendInput(all []input, name string, text []byte, err error) ([]input, error) {
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	return append(all, input{name, manifest.Split(name, text)}), nil
}

// files returns the name itself, or the manifests of the folder of that name.
func (s *sources) files(name string) ([]string, error) {
	about, err := os.Stat(name)
	if err != nil || !about.IsDir() {
		return []string{name}, err
	}
	files, err := s.folder(name)
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s: no manifest in this folder; accepted: *%s", name, strings.Join(endings, ", *"))
		if !s.recursive {
			err = fmt.Errorf("%w; --recursive reads its subfolders too", err)
		}
	}
	return files, err
}

// ofFolder reports whether any of the names is a folder's.
func (s *sources) ofFolder() bool {
	return slices.ContainsFunc(s.names, func(name string) bool {
		about, err := os.Stat(name)
		return err == nil && about.IsDir()
	})
}

// folder lists the manifests of a folder. A link to a file is read, as a
// mounted ConfigMap has them; one to a folder is not followed, and so none
// can lead in a circle.
func (s *sources) folder(name string) ([]string, error) {
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, entry := range entries {
		path := filepath.Join(name, entry.Name())
		if entry.IsDir() {
			if s.recursive {
				below, err := s.folder(path)
				if err != nil {
					return nil, err
				}
				files = append(files, below...)
			}
			continue
		}
		if !slices.Contains(endings, filepath.Ext(path)) {
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

// eof takes the place of stdin once it has been read.
type eof struct{}

func (eof) Read([]byte) (int, error) {
	return 0, errors.New("stdin was read already; accepted: - once")
}
