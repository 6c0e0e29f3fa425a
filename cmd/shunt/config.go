package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/shunt-dev/shunt/cmd/internal/injectflags"
	"github.com/shunt-dev/shunt/inject"
)

func newConfig(name string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Validate the injector's configuration", Args: noArguments, RunE: noCommand,
		Example: examples(name, "config validate injector.yaml"),
	}
	cmd.AddCommand(newValidate(name))
	return cmd
}

const validateLong = `Check a configuration as the webhook would, without a cluster.

Each file, or stdin (-), holds an InjectorConfiguration, or a ConfigMap with one under the key config.yaml or its only key.
stderr has a line for each error: the path, the value and what is accepted.`

func newValidate(name string) *cobra.Command {
	return &cobra.Command{
		Use: "validate FILE...", Short: "Check a configuration as the webhook would", Long: validateLong,
		Example: examples(name, "config validate injector.yaml", "config validate - <injector.yaml"),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(errors.New("FILE: Required value; accepted: files, or - for stdin"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			stdin := cmd.InOrStdin()
			errs := make([]error, len(args))
			for i, file := range args {
				if errs[i] = validate(file, stdin); errs[i] == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "%s: valid\n", display(file))
				}
				if file == "-" {
					stdin = eof{}
				}
			}
			return errors.Join(errs...)
		},
	}
}

// display returns a file's name for messages.
func display(file string) string {
	if file == "-" {
		return "stdin"
	}
	return file
}

func validate(file string, stdin io.Reader) error {
	var text []byte
	var err error
	if file == "-" {
		text, err = io.ReadAll(stdin)
	} else {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	place := display(file) + ": "
	text, key, err := configOf(text)
	if err != nil {
		return fmt.Errorf("%s%w", place, err)
	}
	if key != "" {
		place += "data[" + key + "]: "
	}
	if _, err = inject.ParseConfig(text); err != nil {
		return injectflags.Faults(place, err)
	}
	return nil
}

// configKey names the key of the ConfigMap in config/manager.
const configKey = "config.yaml"

// configOf takes a configuration out of a ConfigMap, and says under which key
// it stood. What is no ConfigMap is the configuration itself.
func configOf(text []byte) (config []byte, key string, err error) {
	if !isConfigMap(text) {
		return text, "", nil // and what is wrong with it is for ParseConfig to say
	}
	var holder corev1.ConfigMap
	if err := yaml.UnmarshalStrict(text, &holder); err != nil {
		return nil, "", fmt.Errorf("read the ConfigMap: %w", err)
	}
	keys := slices.Sorted(maps.Keys(holder.Data))
	switch {
	case slices.Contains(keys, configKey):
		key = configKey
	case len(keys) == 1:
		key = keys[0]
	default:
		return nil, "", fmt.Errorf("data: Invalid value: the ConfigMap has the keys %q; accepted: %s, or a single one",
			strings.Join(keys, ", "), configKey)
	}
	return []byte(holder.Data[key]), key, nil
}

func isConfigMap(text []byte) bool {
	var is metav1.TypeMeta
	return yaml.Unmarshal(text, &is) == nil && is == (metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"})
}
