package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/shunt-dev/shunt/cmd/internal/injectflags"
	"github.com/shunt-dev/shunt/cmd/shunt/internal/check"
	"github.com/shunt-dev/shunt/cmd/shunt/internal/cluster"
)

const checkLong = `Check the installation in a cluster, and list pods that lack the proxy, have an outdated one or do not start
because of it, workloads whose pods are denied, and labels and annotations without effect.

Nothing is changed. It checks the webhook's registration, certificate, replicas and configuration, then all workloads and pods or those
of one namespace. Each finding is a line: OK, WARN or FAIL. What you may not list is named, and the rest is checked.`

// checker holds the values of the flags.
type checker struct {
	target
	all            bool
	config, output string
}

func newCheck(name string) *cobra.Command {
	var c checker
	cmd := &cobra.Command{
		Use: "check", Short: "Check the installation and the pods of a cluster", Long: checkLong, Args: noArguments,
		Example: examples(name, "check", "check -n shop", "check --context production -o json"),
	}
	fs := cmd.Flags()
	c.addFlags(cmd, "check only the workloads and pods of this namespace")
	fs.BoolVarP(&c.all, "all-namespaces", "A", false, "check all namespaces (the default)")
	fs.StringVar(&c.config, "config", "", "injector configuration file, or a ConfigMap that holds it, to use instead of the cluster's")
	fs.StringVarP(&c.output, "output", "o", outputTable, "output format: table or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := c.check(); err != nil {
			return usage(err)
		}
		return c.run(cmd)
	}
	return cmd
}

const outputTable = "table"

func (c checker) check() error {
	return errors.Join(checkOutput(c.output, outputTable, outputJSON), c.checkNamespaces(c.all))
}

func (c checker) run(cmd *cobra.Command) error {
	var overridden check.Snapshot
	if c.config != "" {
		cfg, err := injectflags.ReadFile(c.config)
		if err != nil {
			return usage(err)
		}
		overridden.Config = &cfg
	}
	api, _, err := c.api()
	if err != nil {
		return clusterError{fmt.Errorf("find the cluster: %w", err)}
	}
	snapshot, err := cluster.Read(cmd.Context(), api, c.namespace)
	if err != nil {
		return clusterError{fmt.Errorf("ask the cluster: %w", err)}
	}
	snapshot.Config = overridden.Config
	findings := check.Run(snapshot)
	if err := c.print(cmd.OutOrStdout(), findings); err != nil {
		return fmt.Errorf("print the findings: %w", err)
	}
	if failed := check.Failed(findings); failed > 0 {
		return fmt.Errorf("%d of %d findings are %s", failed, len(findings), check.Fail)
	}
	return nil
}

func (c checker) print(w io.Writer, findings []check.Finding) error {
	if c.output == outputJSON {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(struct {
			Failed   int             `json:"failed"`
			Findings []check.Finding `json:"findings"`
		}{check.Failed(findings), findings})
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "RESULT\tCHECK\tOBJECT\tFOUND")
	for _, f := range findings {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", f.Level, f.Kind, f.Object, f.Message)
	}
	return table.Flush()
}
