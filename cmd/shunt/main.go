// Command shunt shows what Shunt does, without a cluster: it injects manifest
// files and prints the rules that a pod's init container makes. It also checks
// a cluster that has Shunt. Under the name kubectl-shunt the same program is
// kubectl's plug-in, kubectl shunt.
//
// Exit codes: 0 done; 1 what was read is wrong, or could not be read; 2 bad
// usage; 3 the cluster could not be asked. Errors go to stderr, one line each.
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
	var unasked clusterError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &wrong):
		return exitUsage
	case errors.As(err, &unasked):
		return exitCluster
	default:
		return exitContent
	}
}

// calledAs is what a user writes to run the program of the given file: kubectl
// finds its plug-ins by their files' names.
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

func newRoot(name string) *cobra.Command {
	root := &cobra.Command{
		Use:               "shunt",
		Annotations:       map[string]string{cobra.CommandDisplayNameAnnotation: name},
		Short:             "Put a proxy in front of any pod, transparently",
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args:              noArguments,
		RunE:              noCommand,
	}
	root.AddCommand(newInject(name), newUninject(name), newRules(name), newBootstrap(name), newConfig(name), newCheck(name), newVersion())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return usage(fmt.Errorf("%w; accepted: the flags that --help lists", err))
	})
	return root
}

// noCommand is what a command does that only holds others.
func noCommand(cmd *cobra.Command, _ []string) error {
	if err := cmd.Help(); err != nil {
		return err
	}
	return usage(fmt.Errorf("no command given; accepted: %s", commands(cmd)))
}

// noArguments refuses words that are not flags.
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

// examples are command lines for --help, without the program's name.
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
