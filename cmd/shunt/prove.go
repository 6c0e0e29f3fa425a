package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/source"
	"github.com/shunt-dev/shunt/initimage/prove"
)

const proveLong = `Say what holds for every connection of a pod, and prove it.

It states that the proxy gets whatever the pod opens and gets, that no connection of the proxy comes back to it, that every answer
comes back, that nobody outside uses a loopback address, and that both families are alike. For each it lists the exceptions that the
rules make, or shows a connection for which it does not hold, and which way that goes. It looks at all tcp and udp connections, not at
samples: it divides them into classes that meet exactly the same rules.

The rules are those of shunt-init, whose flags stand behind --, unless a flag or a POD names another source. For a running POD an
ephemeral container reads what the pod really has. The exit code is 1 if something is not proved.`

// proofFormats are the values of --output of prove and diff, the default first.
var proofFormats = []string{"text", "json"}

func newProve(name string) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "prove [POD | -f FILE | --dump FILE | --netns PATH | -- shunt-init's flags]",
		Short:   "Prove what holds for every connection of a pod",
		Long:    proveLong,
		Example: examples(name, "prove", "prove -f deployment.yaml", "prove echo-8d7df57bb-zflf4 -n shop", "prove -o json -- -m TPROXY"),
	}
	rules := addSource(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", proofFormats[0], "output format: "+strings.Join(proofFormats, ", "))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := usage(errors.Join(rules.check(), checkOutput(output, proofFormats...))); err != nil {
			return err
		}
		pods, err := rules.Read(cmd.Context(), source.Streams{Stdin: cmd.InOrStdin(), Stderr: cmd.ErrOrStderr()})
		if err != nil {
			return err
		}
		var results []prove.Result
		for _, pod := range pods {
			results = append(results, prove.Prove(pod))
		}
		if err := printProof(cmd.OutOrStdout(), output, results); err != nil {
			return err
		}
		return notProved(results)
	}
	return cmd
}

func printProof(stdout io.Writer, output string, results []prove.Result) error {
	if output == "json" {
		return printJSON(stdout, prove.Document(results))
	}
	return prove.Text(stdout, results)
}

// notProved returns an error that names what is not proved of each pod.
func notProved(results []prove.Result) error {
	var errs []error
	for _, r := range results {
		var names []string
		for _, s := range r.Statements {
			if s.Verdict != prove.Proved {
				names = append(names, s.Name)
			}
		}
		if len(names) > 0 {
			errs = append(errs, fmt.Errorf("%s: not proved: %s", r.Pod.Name, strings.Join(names, ", ")))
		}
	}
	return errors.Join(errs...)
}
