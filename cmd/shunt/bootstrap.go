package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shunt-dev/shunt/cmd/internal/injectflags"
	"github.com/shunt-dev/shunt/cmd/shunt/internal/manifest"
	"github.com/shunt-dev/shunt/initimage/envoy"
)

const bootstrapLong = `Print what the Envoy of each pod starts with: the bootstrap that the pod's init container leaves it.

It is that of a pod that is injected already, or that injection would make, on a node with IPv4 and IPv6 and Linux 5.7 or newer.
In the pod, shunt-init leaves out what its network namespace lacks; to see the file itself:

  kubectl exec POD -c shunt-proxy -- cat /shunt/envoy.yaml`

func newBootstrap(name string) *cobra.Command {
	var files sources
	var namespace string
	cmd := &cobra.Command{
		Use: "bootstrap -f FILE", Short: "Print what the Envoy of a pod starts with", Long: bootstrapLong, Args: noArguments,
		Example: examples(name, "bootstrap -f pod.yaml", "bootstrap -f manifests/ -R --config injector.yaml"),
	}
	files.addFlags(cmd.Flags())
	addNamespace(cmd, &namespace)
	injectflags.Add(cmd.Flags(), injectflags.DefaultPolicy)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := injectflags.Config(cmd.Flags())
		if err := usage(errors.Join(err, files.check(), checkNamespace(namespace))); err != nil {
			return err
		}
		inputs, err := files.read(cmd.InOrStdin())
		if err != nil {
			return err
		}
		injector := manifest.Injector{Config: cfg, Namespace: namespace, Namespaces: namespacesOf(inputs)}
		first := true
		return eachInterception(injector, inputs, cmd.ErrOrStderr(), func(pod manifest.Interception) error {
			if pod.Options.Envoy == "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: no bootstrap: its proxy is not Envoy\n", pod.Place)
				return nil
			}
			settings, err := envoy.ParseSettings(pod.Options.Envoy)
			if err != nil {
				return fmt.Errorf("%s: --envoy: %w", pod.Place, err)
			}
			if !first {
				fmt.Fprintln(cmd.OutOrStdout(), "---")
			}
			first = false
			fmt.Fprintf(cmd.OutOrStdout(), "# %s\n", pod.Place)
			_, err = cmd.OutOrStdout().Write(envoy.Bootstrap(pod.Mode, pod.Spec, settings, envoy.Host{IPv6: true, BindToLoopback: true}))
			return err
		})
	}
	return cmd
}
