// Command shunt injects manifest files, prints the rules and the bootstrap that
// a pod gets, and checks an installation. As kubectl-shunt it is the kubectl
// plug-in kubectl shunt. rootLong has the exit codes. Errors go to stderr, one
// line each.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/shunt-dev/shunt/cmd/shunt/internal/source"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	name := calledAs(os.Args[0])
	err := run(ctx, name, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintln(os.Stderr, name+": "+strings.TrimSuffix(line, "\n"))
		}
	}
	os.Exit(exitCode(err))
}

// Exit codes that scripts rely on.
const (
	exitDone    = 0
	exitContent = 1
	exitUsage   = 2
	exitCluster = 3
)

// usageError wraps an error in the arguments.
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
	var wrongSource *source.ArgsError
	var unasked clusterError
	var unread *source.UnaskedError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &wrong), errors.As(err, &wrongSource):
		return exitUsage
	case errors.As(err, &unasked), errors.As(err, &unread):
		return exitCluster
	default:
		return exitContent
	}
}

// calledAs returns what a user types to run the program of the given file:
// kubectl finds plug-ins by their file names.
func calledAs(file string) string {
	if strings.TrimSuffix(filepath.Base(file), ".exe") == "kubectl-shunt" {
		return "kubectl shunt"
	}
	return "shunt"
}

// run carries out one command line; name is what the user calls the program.
func run(ctx context.Context, name string, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	root := newRoot(name)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root.ExecuteContext(ctx)
}

const rootLong = `Put a proxy in front of any pod, transparently.

inject, uninject, rules, trace, prove, diff, bootstrap and config validate work on files; check, explain and list ask a cluster,
and so does trace of a running pod.

Exit codes:
  0  done
  1  invalid or unreadable input, a FAIL finding of check, or no such pod
  2  wrong command line
  3  the cluster could not be asked`

func newRoot(name string) *cobra.Command {
	root := &cobra.Command{
		Use:               "shunt",
		Annotations:       map[string]string{cobra.CommandDisplayNameAnnotation: name},
		Short:             "Put a proxy in front of any pod, transparently",
		Long:              rootLong,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args:              noArguments,
		RunE:              noCommand,
	}
	root.AddCommand(newInject(name), newUninject(name), newRules(name), newBootstrap(name), newConfig(name), newCheck(name),
		newExplain(name), newList(name), newTrace(name), newProve(name), newDiff(name), newVersion())
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		accepted := "the flags that --help lists"
		if strings.Contains(cmd.Use, "-- shunt-init's flags") {
			accepted += ", and shunt-init's behind --"
		}
		return usage(fmt.Errorf("%w; accepted: %s", err, accepted))
	})
	return root
}

// noCommand runs a command that only groups others: it prints the help and fails.
func noCommand(cmd *cobra.Command, _ []string) error {
	if err := cmd.Help(); err != nil {
		return err
	}
	return usage(fmt.Errorf("no command given; accepted: %s", commands(cmd)))
}

// noArguments rejects words that are not flags.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return usage(fmt.Errorf("unknown command %q; accepted: %s", args[0], commands(cmd)))
	}
	return usage(fmt.Errorf("unexpected argument %q; accepted: flags only", args[0]))
}

// commands lists those below cmd.
func commands(cmd *cobra.Command) string {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() && c.Name() != "help" {
			names = append(names, c.Name())
		}
	}
	return strings.Join(names, ", ")
}

// examples formats command lines, given without the program's name, for --help.
func examples(name string, lines ...string) string {
	for i, line := range lines {
		lines[i] = "  " + name + " " + line
	}
	return strings.Join(lines, "\n")
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
