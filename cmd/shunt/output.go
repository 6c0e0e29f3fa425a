package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/manifest"
	"github.com/shunt-dev/shunt/cmd/shunt/internal/source"
)

// Values of --output.
const (
	outputYAML = "yaml"
	outputJSON = "json"
	outputDiff = "diff"
)

// printer prints manifests as the user wants them.
type printer struct {
	output string
	// become is the word for the changed files in the header of a diff.
	become string
}

func (p *printer) addFlags(fs *pflag.FlagSet) {
	fs.StringVarP(&p.output, "output", "o", outputYAML, "output format: yaml, json, or diff (a unified diff of the change, for patch)")
}

func (p *printer) check() error {
	return checkOutput(p.output, outputYAML, outputJSON, outputDiff)
}

// checkOutput rejects a value of --output that is none of those that are accepted.
func checkOutput(output string, accepted ...string) error {
	if slices.Contains(accepted, output) {
		return nil
	}
	return fmt.Errorf("--output: invalid value %q; accepted: %s", output, strings.Join(accepted, ", "))
}

// print writes what became of the inputs' documents.
func (p *printer) print(stdout io.Writer, inputs []source.Input, outputs [][]manifest.Document) error {
	all := slices.Concat(outputs...)
	text := manifest.Join(all)
	var err error
	switch p.output {
	case outputJSON:
		text, err = manifest.JSON(all)
	case outputDiff:
		text, err = p.diff(inputs, outputs)
	}
	if err != nil {
		return err
	}
	if _, err = stdout.Write(text); err != nil {
		return fmt.Errorf("print the manifests: %w", err)
	}
	return nil
}

func (p *printer) diff(inputs []source.Input, outputs [][]manifest.Document) ([]byte, error) {
	var all []byte
	for i, in := range inputs {
		changes, err := manifest.Diff(in.Name, p.become, in.Docs, outputs[i])
		if err != nil {
			return nil, err
		}
		all = append(all, changes...)
	}
	return all, nil
}
