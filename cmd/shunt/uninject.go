package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/manifest"
)

const uninjectLong = `Print manifests as they were before the proxy was put into their pods.

What was put in is read from the status annotation that injection leaves, sidecar.istio.io/status; neither the injector's
settings nor a cluster are asked. What comes from inject is given back byte for byte where inject put lines between those of
the file, and with the same meaning where it had to print the file anew.

A pod that is not injected, or was injected by something else, is left as it is and named on stderr.`

func newUninject(name string) *cobra.Command {
	var files sources
	out := printer{become: "restored"}
	var namespace string
	cmd := &cobra.Command{
		Use: "uninject -f FILE", Short: "Print manifests with the proxy taken out", Long: uninjectLong, Args: noArguments,
		Example: examples(name,
			"uninject -f injected.yaml | kubectl apply -f -", "uninject -f manifests/ -R -o diff"),
	}
	files.addFlags(cmd.Flags())
	out.addFlags(cmd.Flags())
	addNamespace(cmd, &namespace)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := usage(errors.Join(files.check(), out.check(), checkNamespace(namespace))); err != nil {
			return err
		}
		inputs, err := files.read(cmd.InOrStdin())
		if err != nil {
			return err
		}
		return convert(cmd, inputs, out, false, manifest.Restorer{Namespace: namespace}.Restore)
	}
	return cmd
}
