package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/manifest"
	"github.com/shunt-dev/shunt/cmd/shunt/internal/source"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/strict"
)

// checkExplain rejects output formats that settings have not. The default is a
// table.
func checkExplain(cmd *cobra.Command, output string) error {
	if cmd.Flags().Changed("output") && output != outputJSON {
		return fmt.Errorf("--output: invalid value %q with --explain; accepted: json, or no --output for a table", output)
	}
	return nil
}

// explain prints for every pod of the files where its settings come from;
// nothing where any of them is wrong.
func explain(cmd *cobra.Command, inputs []source.Input, injector manifest.Injector, given map[string]string, output string) error {
	all := []manifest.Explanation{}
	var errs []error
	for _, in := range inputs {
		for _, doc := range in.Docs {
			explanations, notes, err := injector.Explain(doc, given)
			for _, note := range notes {
				fmt.Fprintln(cmd.ErrOrStderr(), note)
			}
			all, errs = append(all, explanations...), append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if output == outputJSON {
		return printJSON(cmd.OutOrStdout(), all)
	}
	return explainTables(cmd.OutOrStdout(), all)
}

func printJSON(stdout io.Writer, value any) error {
	encoder := json.NewEncoder(stdout)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	return nil
}

// explainTables prints a table for each pod, under its name and what becomes
// of it.
func explainTables(stdout io.Writer, all []manifest.Explanation) error {
	for i, e := range all {
		if i > 0 {
			fmt.Fprintln(stdout)
		}
		fmt.Fprintf(stdout, "%s: %s: %s\n", e.Place(), e.Reason, e.Sentence)
		if e.DecidedBy != "" {
			fmt.Fprintf(stdout, "decided by: %s\n", e.DecidedBy)
		}
		if len(e.Settings) == 0 {
			continue
		}
		table := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "SETTING\tVALUE\tFROM")
		for _, s := range e.Settings {
			fmt.Fprintf(table, "%s\t%s\t%s\n", s.Name, cell(s), strings.Join(s.From, ", "))
		}
		if err := table.Flush(); err != nil {
			return fmt.Errorf("print the settings: %w", err)
		}
	}
	return nil
}

// widestCell is the most bytes of a value in a table, which is as wide as the
// longest in all its lines. JSON has the whole.
const widestCell = 100

// cell prints a value on one line; quoted if it has a line break or a tab.
func cell(s inject.Setting) string {
	switch {
	case s.Value == "":
		return "none"
	case strings.ContainsAny(s.Value, "\t\n\v\f\r"):
		return strict.Cut(fmt.Sprintf("%q", s.Value), widestCell)
	default:
		return strict.Cut(s.Value, widestCell)
	}
}
