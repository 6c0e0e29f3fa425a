package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shunt-dev/shunt/cmd/internal/injectflags"
	"github.com/shunt-dev/shunt/cmd/shunt/internal/manifest"
	"github.com/shunt-dev/shunt/cmd/shunt/internal/source"
	"github.com/shunt-dev/shunt/initimage/envoy"
)

const bootstrapLong = `Print the Envoy bootstrap of each pod.

In the pod, shunt-init writes the bootstrap and omits what the network namespace lacks. What is printed assumes IPv4, IPv6 and
Linux 5.7 or newer. To see the file of a running pod:

  kubectl exec POD -c shunt-proxy -- cat /shunt/envoy.yaml`

func newBootstrap(name string) *cobra.Command {
	var files source.Files
	var namespace string
	cmd := &cobra.Command{
		Use: "bootstrap -f FILE", Short: "Print the Envoy bootstrap of a pod", Long: bootstrapLong, Args: noArguments,
		Example: examples(name, "bootstrap -f pod.yaml", "bootstrap -f manifests/ -R --config injector.yaml"),
	}
	files.AddFlags(cmd.Flags())
	addNamespace(cmd, &namespace)
	injectflags.Add(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := injectflags.Config(cmd.Flags())
		if err := usage(errors.Join(err, files.Check(), checkNamespace(namespace))); err != nil {
			return err
		}
		inputs, err := files.Read(cmd.InOrStdin())
		if err != nil {
			return err
		}
		injector := manifest.Injector{Config: cfg, Namespace: namespace, Namespaces: source.NamespacesOf(inputs)}
		first := true
		return source.EachInterception(injector, inputs, cmd.ErrOrStderr(), func(pod manifest.Interception) error {
			if pod.Options.Envoy == "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: no bootstrap: the proxy is not Envoy\n", pod.Place)
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
