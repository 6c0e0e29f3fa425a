package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/manifest"
	"github.com/shunt-dev/shunt/cmd/shunt/internal/source"
)

const uninjectLong = `Print manifests with the proxy removed, as they were before injection.

It undoes what the annotation sidecar.istio.io/status records, whatever the settings were, and needs no configuration and no
cluster. Where inject only added lines, the file comes back byte for byte; elsewhere it comes back with the same meaning.

Pods that are not injected, or were injected by another injector, are left as they are and named on stderr.`

func newUninject(name string) *cobra.Command {
	var files source.Files
	out := printer{become: "restored"}
	var namespace string
	cmd := &cobra.Command{
		Use: "uninject -f FILE", Short: "Print manifests with the proxy removed", Long: uninjectLong, Args: noArguments,
		Example: examples(name,
			"uninject -f injected.yaml | kubectl apply -f -", "uninject -f manifests/ -R -o diff"),
	}
	files.AddFlags(cmd.Flags())
	out.addFlags(cmd.Flags())
	addNamespace(cmd, &namespace)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := usage(errors.Join(files.Check(), out.check(), checkNamespace(namespace))); err != nil {
			return err
		}
		inputs, err := files.Read(cmd.InOrStdin())
		if err != nil {
			return err
		}
		return convert(cmd, inputs, out, false, manifest.Restorer{Namespace: namespace}.Restore)
	}
	return cmd
}
