package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/shunt-dev/shunt/cmd/internal/injectflags"
	"github.com/shunt-dev/shunt/cmd/shunt/internal/source"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/config"
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
A file that it names is looked for in its folder, or among the keys of the ConfigMap.
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
					stdin = source.EOF{}
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
	var beside config.ReadFile
	var err error
	if file == "-" {
		text, err = io.ReadAll(stdin)
	} else {
		text, err = os.ReadFile(file)
		beside = injectflags.Beside(file)
	}
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	place := display(file) + ": "
	text, key, beside, err := injectflags.OfConfigMap(text, beside)
	if err != nil {
		return fmt.Errorf("%s%w", place, err)
	}
	if key != "" {
		place += "data[" + key + "]: "
	}
	if _, err = inject.ParseConfigFile(text, beside); err != nil {
		return injectflags.Faults(place, err)
	}
	return nil
}
