package main

import (
	"fmt"
	"io"
	"os"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/manifest"
)

// input is a file as the user named it.
type input struct {
	name string
	text []byte
	docs []manifest.Document
}

// read opens every file; "-" is stdin, and can be named once.
func read(names []string, stdin io.Reader) ([]input, error) {
	var all []input
	for _, name := range names {
		in := input{name: name}
		var err error
		if name == "-" {
			in.name = "stdin"
			in.text, err = io.ReadAll(stdin)
			stdin = eof{}
		} else {
			in.text, err = os.ReadFile(name)
		}
		if err != nil {
			return nil, fmt.Errorf("read manifests: %w", err)
		}
		if in.docs, err = manifest.Split(in.name, in.text); err != nil {
			return nil, err
		}
		all = append(all, in)
	}
	return all, nil
}

// eof is stdin once it has been read.
type eof struct{}

func (eof) Read([]byte) (int, error) {
	return 0, fmt.Errorf("stdin was read already; accepted: -f - once")
}
