//go:build linux

// Command shunt-init programs the network namespace that it runs in, so that
// a pod's connections go through its proxy. It takes istio-iptables' flags.
//
// Exit codes: 0 done; 2 bad arguments, nothing was touched; 3 this kernel or
// namespace cannot take the rules, nothing was touched; 4 a change failed, and
// what was there before has been put back.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// version is set by the linker.
var version = "dev"

func main() {
	// A network namespace belongs to a thread; all that touches it stays here.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	for line := range strings.Lines(message(err)) {
		fmt.Fprintln(os.Stderr, "shunt-init: "+strings.TrimSuffix(line, "\n"))
	}
	os.Exit(exitCode(err))
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Exit codes that scripts rely on.
const (
	exitDone      = 0
	exitArguments = 2
	exitPreflight = 3
	exitApply     = 4
)

func exitCode(err error) int {
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, kernel.ErrPreflight):
		return exitPreflight
	case errors.Is(err, kernel.ErrApply):
		return exitApply
	default:
		return exitArguments
	}
}

// run does what the arguments ask for and says on stdout what it did.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) == 1 && args[0] == "--version" {
		_, err := fmt.Fprintln(stdout, "shunt-init", version)
		return err
	}
	spec, opts, err := interception.ParseArgs(args)
	if errors.Is(err, pflag.ErrHelp) {
		_, err := fmt.Fprint(stdout, "Usage: shunt-init [flags]\n\n", interception.Usage())
		return err
	}
	if err != nil {
		return err
	}
	if spec, err = withResolvers(spec, opts); err != nil {
		return err
	}
	if opts.NetNS != "" {
		if err := kernel.Enter(opts.NetNS); err != nil {
			return err
		}
	}
	switch opts.Action() {
	case interception.ActionDryRun:
		return dryRun(spec, opts, stdout)
	case interception.ActionRemove:
		return remove(ctx, opts, stdout)
	default:
		return apply(ctx, spec, opts, stdout)
	}
}

// dryRun prints the rules without looking at the namespace.
func dryRun(spec interception.Spec, opts interception.Options, stdout io.Writer) error {
	for _, family := range ruleset.Families {
		if family == ruleset.IPv6 && opts.IPv6 == interception.IPv6Off {
			continue
		}
		if _, err := fmt.Fprintf(stdout, "# %s\n%s", family, ruleset.Build(spec, family)); err != nil {
			return fmt.Errorf("printing the rules: %w", err)
		}
	}
	return nil
}

// remove takes everything of Shunt's away.
func remove(ctx context.Context, opts interception.Options, stdout io.Writer) error {
	host, err := kernel.Open(ctx, opts)
	if err != nil {
		return err
	}
	defer host.Close()
	result, err := kernel.Remove(ctx, host, host.Families())
	if err != nil {
		return err
	}
	did := "nothing to remove"
	if result.Changed {
		did = "removed"
	}
	_, err = fmt.Fprintf(stdout, "shunt-init: %s: %s\n", host, did)
	return err
}

func apply(ctx context.Context, spec interception.Spec, opts interception.Options, stdout io.Writer) error {
	host, err := kernel.Open(ctx, opts)
	if err != nil {
		return err
	}
	defer host.Close()
	var want []ruleset.RuleSet
	var families []string
	for _, family := range host.Families() {
		want = append(want, ruleset.Build(spec, family))
		families = append(families, family.String())
	}
	result, err := kernel.Apply(ctx, host, want)
	if err != nil {
		return err
	}
	did := "nothing to change"
	if result.Changed {
		did = "applied"
	}
	_, err = fmt.Fprintf(stdout, "shunt-init: %s over %s, %s: %s\n", spec.System, host, strings.Join(families, " and "), did)
	return err
}
