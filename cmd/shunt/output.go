package main

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/pflag"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/manifest"
)

// Values of --output.
const (
	outputYAML = "yaml"
	outputJSON = "json"
	outputDiff = "diff"
)

// printer prints manifests as the user wants them.
type printer struct {
	output, color string
	// become says in a word, in the header of a diff, what became of the files.
	become string
}

func (p *printer) addFlags(fs *pflag.FlagSet) {
	fs.StringVarP(&p.output, "output", "o", outputYAML, "yaml, json, or diff: what changes, as a unified diff")
	fs.StringVar(&p.color, "color", colorAuto,
		"auto, always or never: colours of the diff; auto heeds NO_COLOR, and whether a terminal is there to show them")
}

func (p *printer) check() error {
	var wrong error
	if !slices.Contains([]string{outputYAML, outputJSON, outputDiff}, p.output) {
		wrong = fmt.Errorf("--output: invalid value %q; accepted: yaml, json, diff", p.output)
	}
	return errors.Join(wrong, checkColor(p.color))
}

// print writes what became of the inputs' documents.
func (p *printer) print(stdout io.Writer, inputs []input, outputs [][]manifest.Document) error {
	all := slices.Concat(outputs...)
	text := manifest.Join(all)
	var err error
	switch p.output {
	case outputJSON:
		text, err = manifest.JSON(all)
	case outputDiff:
		text, err = p.diff(colored(p.color, stdout), inputs, outputs)
	}
	if err != nil {
		return err
	}
	if _, err = stdout.Write(text); err != nil {
		return fmt.Errorf("print the manifests: %w", err)
	}
	return nil
}

func (p *printer) diff(colored bool, inputs []input, outputs [][]manifest.Document) ([]byte, error) {
	var all []byte
	for i, in := range inputs {
		changes, err := manifest.Diff(in.name, p.become, in.docs, outputs[i])
		if err != nil {
			return nil, err
		}
		if colored {
			changes = paint(changes)
		}
		all = append(all, changes...)
	}
	return all, nil
}
