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
)

const injectLong = `Print manifests with the proxy put into every pod.

Pods are taken from Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob and lists of them, YAML
or JSON, many documents in a file; and from any other kind with a pod template under spec.template, where that asks by the label
sidecar.istio.io/inject: "true". All else is printed as it was read, byte for byte, and so are patches: workloads without containers.

No namespace is asked: running this is asking for injection, as with istioctl kube-inject. What a pod itself says counts as in
a cluster: sidecar.istio.io/inject: "false" declines, and pods of the host's network or for Windows are left alone. Each pod
that is not injected is named on stderr with the reason. Of a folder the last line there counts what was injected, left alone
and denied.

An injected pod that later meets the webhook is left as it is, if both have the same settings. Put the Namespace among the files
where its annotations have settings for its pods.

--explain prints no manifest, but a table of all settings that hold for each pod, with where each came from: an annotation of the
pod or its namespace, the configuration file, a flag, or the default; -o json prints the same for programs.`

func newInject(name string) *cobra.Command {
	var files sources
	out := printer{become: "injected"}
	var namespace string
	var explained bool
	cmd := &cobra.Command{
		Use: "inject -f FILE", Short: "Print manifests with the proxy put in", Long: injectLong, Args: noArguments,
		Example: examples(name,
			"inject -f deployment.yaml | kubectl apply -f -", "inject -f manifests/ -R -o diff",
			"inject -f namespace.yaml -f deployment.yaml --explain"),
	}
	files.addFlags(cmd.Flags())
	out.addFlags(cmd.Flags())
	addNamespace(cmd, &namespace)
	injectflags.Add(cmd.Flags(), injectflags.DefaultPolicy)
	cmd.Flags().BoolVar(&explained, "explain", false, "print where the settings of each pod come from, and no manifest")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, given, err := injectflags.ConfigAndOrigins(cmd.Flags())
		if explained {
			err = errors.Join(err, checkExplain(cmd, out.output))
		}
		if err := usage(errors.Join(err, files.check(), out.check(), checkNamespace(namespace))); err != nil {
			return err
		}
		inputs, err := files.read(cmd.InOrStdin())
		if err != nil {
			return err
		}
		injector := manifest.Injector{Config: cfg, Namespace: namespace, Namespaces: namespacesOf(inputs)}
		if explained {
			return explain(cmd, inputs, injector, given, out.output)
		}
		return convert(cmd, inputs, out, files.ofFolder(), injector.Inject)
	}
	return cmd
}

func addNamespace(cmd *cobra.Command, namespace *string) {
	cmd.Flags().StringVarP(namespace, "namespace", "n", "default", "namespace of objects that name none")
}

func checkNamespace(namespace string) error {
	if wrong := validation.IsDNS1123Label(namespace); len(wrong) > 0 {
		return fmt.Errorf("--namespace: invalid value %q; accepted: %s", namespace, strings.Join(wrong, ", "))
	}
	return nil
}

// namespacesOf are the Namespaces of all files.
func namespacesOf(inputs []input) manifest.Namespaces {
	all := manifest.Namespaces{}
	for _, in := range inputs {
		for _, doc := range in.docs {
			all.Add(doc)
		}
	}
	return all
}

// convert has something done with each document, and prints what became of
// them; nothing where any of them is wrong. Its last line on stderr says how many
// workloads became what, where counted.
func convert(
	cmd *cobra.Command, inputs []input, out printer, counted bool, change func(manifest.Document) (manifest.Outcome, error),
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
	change func(manifest.Document) (manifest.Outcome, error), inputs []input, stderr io.Writer,
) ([][]manifest.Document, manifest.Tally, error) {
	var tally manifest.Tally
	outputs := make([][]manifest.Document, len(inputs))
	var errs []error
	for i, in := range inputs {
		for _, doc := range in.docs {
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
