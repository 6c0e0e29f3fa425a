package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"
	_ "k8s.io/client-go/plugin/pkg/client/auth/oidc" // kubeconfig files may name it
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/shunt-dev/shunt/cmd/internal/injectflags"
	"github.com/shunt-dev/shunt/cmd/shunt/internal/check"
	"github.com/shunt-dev/shunt/cmd/shunt/internal/cluster"
)

const checkLong = `Say what is well and what is not with Shunt in a cluster. Nothing is changed.

Asked are: whether the webhook is registered, for which revision, and with the settings that ship; whether API servers can trust
its certificate, and for how long that is valid; whether it is available; whether its configuration can be read; and of the pods,
which should have the proxy and have none, and which have one that is not as it would be put in now.

Each finding is a line, OK, WARN or FAIL. The exit code is 0 where nothing is FAIL, 1 where something is, and 3 where the cluster
could not be asked.`

// checker is what the flags say.
type checker struct {
	kubeconfig, context, namespace string
	all                            bool
	config, output                 string
}

func newCheck(name string) *cobra.Command {
	var c checker
	cmd := &cobra.Command{
		Use: "check", Short: "Say what is well and what is not with Shunt in a cluster", Long: checkLong, Args: noArguments,
		Example: examples(name, "check", "check -n shop", "check --context production -o json"),
	}
	fs := cmd.Flags()
	fs.StringVar(&c.kubeconfig, "kubeconfig", "", "file that says where the cluster is; $KUBECONFIG or ~/.kube/config without it")
	fs.StringVar(&c.context, "context", "", "context of that file; the current one without it")
	fs.StringVarP(&c.namespace, "namespace", "n", "", "namespace whose pods are checked")
	fs.BoolVarP(&c.all, "all-namespaces", "A", false, "check the pods of all namespaces, as without -n")
	fs.StringVar(&c.config, "config", "", "file with the injector's configuration, YAML, in place of the cluster's")
	fs.StringVarP(&c.output, "output", "o", outputTable, "table or json")
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
	var errs []error
	if c.output != outputTable && c.output != outputJSON {
		errs = append(errs, fmt.Errorf("--output: invalid value %q; accepted: table, json", c.output))
	}
	if c.namespace != "" {
		errs = append(errs, checkNamespace(c.namespace))
		if c.all {
			errs = append(errs, errors.New("--all-namespaces beside --namespace; accepted: one of the two"))
		}
	}
	return errors.Join(errs...)
}

// clusterError is an error for which nothing could be checked.
type clusterError struct{ error }

func (e clusterError) Unwrap() error { return e.error }

func (c checker) run(cmd *cobra.Command) error {
	var overridden check.Snapshot
	if c.config != "" {
		cfg, err := injectflags.ReadFile(c.config)
		if err != nil {
			return usage(err)
		}
		overridden.Config = &cfg
	}
	api, err := c.api()
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

// api is where kubectl would ask.
func (c checker) api() (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.kubeconfig
	api, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules,
		&clientcmd.ConfigOverrides{CurrentContext: c.context}).ClientConfig()
	if err != nil {
		return nil, err
	}
	api.QPS = -1 // the API server has a brake of its own
	return api, nil
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
