package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/cluster"
	"github.com/shunt-dev/shunt/cmd/shunt/internal/live"
)

const explainLong = `Explain what a pod of a cluster has of Shunt, what a new one would get, and why.

It says by which label or rule the pod has the proxy or not, its mode, revision and the version that injected it, what changed
since, setting by setting, whether the proxy's containers run, and where each setting of a new pod comes from.

Of a workload, it explains the newest pod. Nothing is changed. For files, see inject --explain.`

// podExplainer holds the values of the flags.
type podExplainer struct {
	target
	output     string
	kind, name string
}

func newExplain(name string) *cobra.Command {
	var e podExplainer
	cmd := &cobra.Command{
		Use: "explain POD", Short: "Explain what a pod of a cluster has, and why", Long: explainLong,
		Example: examples(name, "explain echo-8d7df57bb-zflf4 -n shop", "explain deployment/echo", "explain echo -o json"),
		Args: func(_ *cobra.Command, args []string) (err error) {
			e.kind, e.name, err = cluster.Named(args...)
			return usage(err)
		},
	}
	e.addFlags(cmd, "the pod's namespace (default the context's)")
	cmd.Flags().StringVarP(&e.output, "output", "o", outputTable, "output format: table or json")
	e.completePods(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := errors.Join(checkOutput(e.output, outputTable, outputJSON), e.checkNamespaces(false)); err != nil {
			return usage(err)
		}
		return e.run(cmd)
	}
	return cmd
}

func (e *podExplainer) run(cmd *cobra.Command) error {
	api, namespace, err := e.api()
	if err != nil {
		return clusterError{fmt.Errorf("find the cluster: %w", err)}
	}
	snapshot, pod, err := cluster.Pod(cmd.Context(), api, namespace, e.kind, e.name)
	var missing cluster.NotFoundError
	switch {
	case errors.As(err, &missing):
		return missing
	case err != nil:
		return clusterError{fmt.Errorf("ask the cluster: %w", err)}
	}
	explanation := live.Explain(snapshot, pod)
	if e.output == outputJSON {
		return printJSON(cmd.OutOrStdout(), explanation)
	}
	return printExplanation(cmd.OutOrStdout(), explanation, e.commandFlags())
}

// commandFlags are the flags of kubectl's commands that ask the same cluster.
func (t *target) commandFlags() string {
	flags := ""
	if t.kubeconfig != "" {
		flags += " --kubeconfig " + quoted(t.kubeconfig)
	}
	if t.context != "" {
		flags += " --context " + quoted(t.context)
	}
	return flags
}

// quoted keeps a word one word for a shell.
func quoted(word string) string {
	if strings.ContainsFunc(word, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./@:", r)
	}) {
		return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return word
}

// printExplanation prints what a person reads from the top: what the pod has, why,
// what to do, and then the tables.
func printExplanation(w io.Writer, e live.Explanation, flags string) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range e.Lines(flags) {
		fmt.Fprintf(out, "%s\t%s\n", line[0], line[1])
	}
	tables := []struct {
		header []string
		rows   [][]string
	}{
		{[]string{"CHANGED", "THIS POD", "A NEW POD"}, e.ChangeCells()},
		{[]string{"CONTAINER", "STATE", "READY", "RESTARTS", "LAST TERMINATION"}, e.ContainerCells()},
		{[]string{e.SettingHeader(), "VALUE", "FROM"}, nil},
	}
	for _, s := range e.Settings {
		tables[2].rows = append(tables[2].rows, []string{s.Name, cell(s), strings.Join(s.From, ", ")})
	}
	for _, table := range tables {
		if len(table.rows) == 0 {
			continue
		}
		fmt.Fprintln(out)
		for _, row := range append([][]string{table.header}, table.rows...) {
			fmt.Fprintln(out, strings.Join(row, "\t"))
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("print the explanation: %w", err)
	}
	return nil
}
