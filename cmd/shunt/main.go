// Command shunt shows what Shunt does, without a cluster: it injects manifest
// files and prints the rules that a pod's init container makes.
//
// Exit codes: 0 done; 1 what was read is wrong, or could not be read; 2 bad
// usage. Errors go to stderr, one line each.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintln(os.Stderr, "shunt: "+strings.TrimSuffix(line, "\n"))
		}
	}
	os.Exit(exitCode(err))
}

// Exit codes that scripts rely on.
const (
	exitDone    = 0
	exitContent = 1
	exitUsage   = 2
)

// usageError is an error that the arguments are to blame for.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}

func exitCode(err error) int {
	var wrong usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &wrong):
		return exitUsage
	default:
		return exitContent
	}
}

// run carries out one command line.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	root := &cobra.Command{
		Use:               "shunt",
		Short:             "Put a proxy in front of any pod, transparently",
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args:              noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmd.Help(); err != nil {
				return err
			}
			return usage(errors.New("no command given; accepted: inject, rules, version"))
		},
	}
	root.AddCommand(newInject(), newRules(), newVersion())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return usage(fmt.Errorf("%w; accepted: the flags that --help lists", err))
	})
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root.ExecuteContext(ctx)
}

// noArguments refuses words that are not flags.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return usage(fmt.Errorf("unknown command %q; accepted: inject, rules, version", args[0]))
	}
	return usage(fmt.Errorf("unexpected argument %q; accepted: flags only", args[0]))
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "shunt", version)
			return err
		},
	}
}
