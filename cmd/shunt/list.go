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

const listLong = `List the workloads of a cluster whose pods have the proxy, or should have it.

A workload is a row: its pods, how many have the proxy, the mode and the version that injected them, whether new pods would be
the same, and by which label or rule. Pods that have ended are left out. With -n, it lists all workloads of that namespace.

With -o restart, it prints the commands that replace pods that are not up to date, and nothing else.`

// outputRestart prints commands.
const outputRestart = "restart"

// lister holds the values of the flags.
type lister struct {
	target
	all    bool
	output string
}

func newList(name string) *cobra.Command {
	var l lister
	cmd := &cobra.Command{
		Use: "list", Short: "List the workloads that have the proxy, or should have it", Long: listLong, Args: noArguments,
		Example: examples(name, "list", "list -n shop", "list -n shop -o restart | sh"),
	}
	l.addFlags(cmd, "list only, and all of, the workloads of this namespace")
	cmd.Flags().BoolVarP(&l.all, "all-namespaces", "A", false, "list the workloads of all namespaces (the default)")
	cmd.Flags().StringVarP(&l.output, "output", "o", outputTable, "output format: table, json or restart")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := errors.Join(checkOutput(l.output, outputTable, outputJSON, outputRestart), l.checkNamespaces(l.all)); err != nil {
			return usage(err)
		}
		return l.run(cmd)
	}
	return cmd
}

func (l *lister) run(cmd *cobra.Command) error {
	api, _, err := l.api()
	if err != nil {
		return clusterError{fmt.Errorf("find the cluster: %w", err)}
	}
	snapshot, err := cluster.List(cmd.Context(), api, l.namespace)
	if err != nil {
		return clusterError{fmt.Errorf("ask the cluster: %w", err)}
	}
	for _, line := range live.Unknowns(snapshot) {
		fmt.Fprintln(cmd.ErrOrStderr(), line)
	}
	rows := live.List(snapshot, l.namespace != "")
	switch l.output {
	case outputJSON:
		return printJSON(cmd.OutOrStdout(), rows)
	case outputRestart:
		return printLines(cmd.OutOrStdout(), live.Restarts(rows, l.commandFlags()))
	case outputTable:
		if len(rows) == 0 {
			_, err := fmt.Fprintln(cmd.ErrOrStderr(), "no pod has the proxy, or should have it")
			return err
		}
	}
	out := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, strings.Join(live.Columns, "\t"))
	for _, row := range rows {
		fmt.Fprintln(out, strings.Join(row.Cells(), "\t"))
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("print the list: %w", err)
	}
	return nil
}

func printLines(w io.Writer, lines []string) error {
	for _, line := range lines {
		if _, err := fmt.Fprintln(w, line); err != nil {
			return fmt.Errorf("print the list: %w", err)
		}
	}
	return nil
}
