package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/shunt-dev/shunt/cmd/internal/injectflags"
	"github.com/shunt-dev/shunt/cmd/shunt/internal/manifest"
)

const injectLong = `Print manifests with the proxy put into every pod.

Pods are taken from Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob and List, YAML or JSON, many documents
in a file. All else is printed as it was read, byte for byte.

No namespace is asked: running this is asking for injection, as with istioctl kube-inject. What a pod itself says counts as in
a cluster: sidecar.istio.io/inject: "false" declines, and pods of the host's network or for Windows are left alone. Each pod
that is not injected is named on stderr with the reason.

An injected pod that later meets the webhook is left as it is, if both have the same settings.

  shunt inject -f deployment.yaml | kubectl apply -f -
  shunt inject -f deployment.yaml -o diff`

// Values of --output.
const (
	outputYAML = "yaml"
	outputJSON = "json"
	outputDiff = "diff"
)

func newInject() *cobra.Command {
	var files []string
	var output, namespace string
	cmd := &cobra.Command{
		Use: "inject -f FILE", Short: "Print manifests with the proxy put in", Long: injectLong, Args: noArguments,
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file with manifests, - for stdin; can be repeated")
	cmd.Flags().StringVarP(&output, "output", "o", outputYAML,
		"yaml, json, or diff: what injection changes, as a unified diff")
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "default", "namespace of objects that name none")
	injectflags.Add(cmd.Flags(), injectflags.DefaultPolicy)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := injectflags.Config(cmd.Flags())
		if err := usage(errors.Join(err, checkInject(files, output, namespace))); err != nil {
			return err
		}
		inputs, err := read(files, cmd.InOrStdin())
		if err != nil {
			return err
		}
		injector := manifest.Injector{Config: cfg, Namespace: namespace}
		outputs, err := injectAll(injector, inputs, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		return write(cmd.OutOrStdout(), output, inputs, outputs)
	}
	return cmd
}

func checkInject(files []string, output, namespace string) error {
	var errs []error
	if len(files) == 0 {
		errs = append(errs, errors.New("--filename: Required value; accepted: a file, or - for stdin"))
	}
	if !slices.Contains([]string{outputYAML, outputJSON, outputDiff}, output) {
		errs = append(errs, fmt.Errorf("--output: invalid value %q; accepted: yaml, json, diff", output))
	}
	if wrong := validation.IsDNS1123Label(namespace); len(wrong) > 0 {
		errs = append(errs, fmt.Errorf("--namespace: invalid value %q; accepted: %s", namespace, strings.Join(wrong, ", ")))
	}
	return errors.Join(errs...)
}

// injectAll returns the documents of each input, injected. The error joins
// all that is wrong with any of them.
func injectAll(injector manifest.Injector, inputs []input, stderr io.Writer) ([][]manifest.Document, error) {
	outputs := make([][]manifest.Document, len(inputs))
	var errs []error
	for i, in := range inputs {
		for _, doc := range in.docs {
			outcome, err := injector.Inject(doc)
			for _, note := range outcome.Notes {
				fmt.Fprintln(stderr, note)
			}
			errs = append(errs, err)
			outputs[i] = append(outputs[i], outcome.Document)
		}
	}
	return outputs, errors.Join(errs...)
}

func write(stdout io.Writer, output string, inputs []input, outputs [][]manifest.Document) error {
	all := slices.Concat(outputs...)
	text := manifest.Join(all)
	var err error
	switch output {
	case outputJSON:
		text, err = manifest.JSON(all)
	case outputDiff:
		text = nil
		for i, in := range inputs {
			var changes []byte
			if changes, err = manifest.Diff(in.name, in.docs, outputs[i]); err != nil {
				return err
			}
			text = append(text, changes...)
		}
	}
	if err != nil {
		return err
	}
	if _, err = stdout.Write(text); err != nil {
		return fmt.Errorf("print the manifests: %w", err)
	}
	return nil
}
