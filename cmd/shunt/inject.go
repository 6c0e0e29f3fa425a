package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/shunt-dev/shunt/cmd/internal/injectflags"
	"github.com/shunt-dev/shunt/cmd/shunt/internal/manifest"
	"github.com/shunt-dev/shunt/cmd/shunt/internal/source"
)

const injectLong = `Print manifests with the proxy injected into every pod.

It injects Pods, the workloads of Kubernetes (Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob)
and lists of them, in YAML or JSON. It injects other kinds with a pod template in spec.template if the template has the label
sidecar.istio.io/inject: "true". Everything else is printed unchanged, patches (workloads without containers) included.

No cluster is asked: every pod counts as opted in, unless it opts out. Pods that cannot have the proxy, such as those with
hostNetwork, are left alone. stderr names each pod that is not injected, with the reason; for a folder, the last line counts them.

Pass the Namespace too if it has annotations for its pods. A webhook with the same settings leaves an injected pod as it is.

With --explain, print each setting of each pod and where it comes from: an annotation of the pod or its namespace, the
configuration file, a flag, or the default. The labels of a Namespace among the files then count as they do in a cluster, and the
output names the label or rule that decides.`

func newInject(name string) *cobra.Command {
	var files source.Files
	out := printer{become: "injected"}
	var namespace string
	var explained bool
	cmd := &cobra.Command{
		Use: "inject -f FILE", Short: "Print manifests with the proxy injected", Long: injectLong, Args: noArguments,
		Example: examples(name,
			"inject -f deployment.yaml | kubectl apply -f -", "inject -f manifests/ -R -o diff",
			"inject -f namespace.yaml -f deployment.yaml --explain"),
	}
	files.AddFlags(cmd.Flags())
	out.addFlags(cmd.Flags())
	addNamespace(cmd, &namespace)
	injectflags.Add(cmd.Flags())
	cmd.Flags().BoolVar(&explained, "explain", false, "print the settings of each pod and their sources, as a table or with -o json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, given, err := injectflags.ConfigAndOrigins(cmd.Flags())
		if explained {
			err = errors.Join(err, checkExplain(cmd, out.output))
		}
		if err := usage(errors.Join(err, files.Check(), out.check(), checkNamespace(namespace))); err != nil {
			return err
		}
		inputs, err := files.Read(cmd.InOrStdin())
		if err != nil {
			return err
		}
		injector := manifest.Injector{Config: cfg, Version: version, Namespace: namespace, Namespaces: source.NamespacesOf(inputs)}
		if explained {
			return explain(cmd, inputs, injector, given, out.output)
		}
		return convert(cmd, inputs, out, files.OfFolder(), injector.Inject)
	}
	return cmd
}

func addNamespace(cmd *cobra.Command, namespace *string) {
	cmd.Flags().StringVarP(namespace, "namespace", "n", "default", "namespace of objects that have none")
}

func checkNamespace(namespace string) error {
	if wrong := validation.IsDNS1123Label(namespace); len(wrong) > 0 {
		return fmt.Errorf("--namespace: invalid value %q; accepted: %s", namespace, strings.Join(wrong, ", "))
	}
	return nil
}

// convert changes each document and prints all of them, or none if any of them
// is wrong. If counted, its last line on stderr counts the workloads.
func convert(
	cmd *cobra.Command, inputs []source.Input, out printer, counted bool, change func(manifest.Document) (manifest.Outcome, error),
) error {
	outputs, tally, err := changeAll(change, inputs, cmd.ErrOrStderr())
	switch {
	case err != nil && counted:
		return errors.Join(err, fmt.Errorf("%s: nothing is printed", tally))
	case err != nil:
		return err
	}
	if err := out.print(cmd.OutOrStdout(), inputs, outputs); err != nil {
		return err
	}
	if counted {
		fmt.Fprintln(cmd.ErrOrStderr(), tally)
	}
	return nil
}

// changeAll returns the documents of each input, changed. The error joins all
// that is wrong with any of them.
func changeAll(
	change func(manifest.Document) (manifest.Outcome, error), inputs []source.Input, stderr io.Writer,
) ([][]manifest.Document, manifest.Tally, error) {
	var tally manifest.Tally
	outputs := make([][]manifest.Document, len(inputs))
	var errs []error
	for i, in := range inputs {
		for _, doc := range in.Docs {
			outcome, err := change(doc)
			for _, note := range outcome.Notes {
				fmt.Fprintln(stderr, note)
			}
			tally.Add(outcome.Tally)
			errs = append(errs, err)
			outputs[i] = append(outputs[i], outcome.Document)
		}
	}
	return outputs, tally, errors.Join(errs...)
}
