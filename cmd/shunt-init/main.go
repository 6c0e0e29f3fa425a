//go:build linux

// Command shunt-init takes istio-iptables' flags in and programs the network
// namespace that it runs in, so that a pod's connections go through its proxy.
//
// `shunt-init share` leaves the proxy its files and programs nothing. `shunt-init
// gate` does so too, and ends once the node's agent has programmed the namespace. In the
// proxy's container, `shunt-init drain` waits until no requests or connections are
// left in the proxy, `shunt-init wait` waits until the proxy answers, and
// `shunt-init probe` checks whether a port of the pod is open.
//
// Exit codes: 0 done; 2 bad arguments, nothing was touched; 3 this kernel or
// namespace cannot take the rules, nothing was touched; 4 a change failed and has
// been undone, or drain, probe or wait could not reach the proxy; 5 verification
// found a difference.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/shunt-dev/shunt/cmd/shunt-init/internal/drain"
	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// version is set by the linker.
var version = "dev"

// memoryLimit is the heap size from which on garbage is collected. A pod with few
// rules uses a fifth of it.
const memoryLimit = 16 << 20

func main() {
	// Go ends a program that crashes with exit code 2, which means bad arguments
	// here, and that nothing was touched. Now it ends by SIGABRT.
	debug.SetTraceback("crash")
	// The process is gone before a collection would pay off, unless lists are long.
	// The iptables commands need room in the same container's limit.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(memoryLimit)
	err := run(untilSignal{}, os.Args[1:], os.Stdout)
	for line := range strings.Lines(message(err)) {
		fmt.Fprintln(os.Stderr, "shunt-init: "+strings.TrimSuffix(line, "\n"))
	}
	os.Exit(exitCode(err))
}

// untilSignal is a context that a signal cancels. It catches signals from when
// somebody first waits for it: catching them takes two threads, and a run without
// commands is over before they would be of use. Until then a signal ends the
// process, which is safe at any time.
type untilSignal struct{}

var caught = sync.OnceValue(func() context.Context {
	ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	return ctx
})

// Deadline implements context.Context: there is none.
func (untilSignal) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }

// Value implements context.Context: it has none.
func (untilSignal) Value(any) any { return nil }

// Done implements context.Context.
func (untilSignal) Done() <-chan struct{} { return caught().Done() }

// Err implements context.Context.
func (untilSignal) Err() error { return caught().Err() }

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
	// exitUnreachable is the code of drain, probe and wait, which change nothing.
	exitUnreachable = 4
	exitVerify      = 5
)

func exitCode(err error) int {
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, kernel.ErrPreflight):
		return exitPreflight
	case errors.Is(err, kernel.ErrApply):
		return exitApply
	case errors.Is(err, kernel.ErrVerify):
		return exitVerify
	case errors.Is(err, drain.ErrAdmin), errors.Is(err, errProbe), errors.Is(err, errWait):
		return exitUnreachable
	default:
		return exitArguments
	}
}

// subcommands are the first arguments that ask for something other than rules.
var subcommands = map[string]func(ctx context.Context, args []string, stdout io.Writer) error{
	drainCommand: runDrain, dumpCommand: runDump, probeCommand: runProbe, waitCommand: runWait,
	interception.ShareCommand: runShare, interception.GateCommand: runGate,
}

// run does what the arguments ask for and reports it on stdout.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) > 0 && subcommands[args[0]] != nil {
		return subcommands[args[0]](ctx, args[1:], stdout)
	}
	if len(args) == 1 && args[0] == "--version" {
		_, err := fmt.Fprintln(stdout, "shunt-init", version)
		return err
	}
	task, err := parseTask(args)
	if errors.Is(err, pflag.ErrHelp) {
		_, err := fmt.Fprint(stdout, "Usage: shunt-init [flags]\n       shunt-init drain [--help]\n       shunt-init dump [--help]\n"+
			"       shunt-init gate [--help]\n       shunt-init probe [--help]\n"+
			"       shunt-init share [--help]\n       shunt-init wait [--help]\n\n",
			interception.Usage())
		return err
	}
	if err != nil {
		return err
	}
	return program(ctx, task, stdout)
}

// parseTask reads the arguments, and the pod's resolvers if they are needed.
func parseTask(args []string) (task, error) {
	spec, opts, err := interception.ParseArgs(args)
	if err != nil {
		return task{}, err
	}
	resolvers, err := podResolvers(spec, opts)
	if err != nil {
		return task{}, err
	}
	if spec.DNS.Redirect && !spec.DNS.All {
		spec.DNS.Servers = prefixesOf(resolvers)
	}
	settings := envoy.DefaultSettings()
	if opts.Envoy != "" {
		if settings, err = envoy.ParseSettings(opts.Envoy); err != nil {
			return task{}, fmt.Errorf("--envoy: %w", err)
		}
	}
	return task{spec, opts, resolvers, settings}, nil
}

// task is what the arguments ask for.
type task struct {
	spec      interception.Spec
	opts      interception.Options
	resolvers []netip.Addr // of the pod
	settings  envoy.Settings
}

// program carries the task out in its network namespace.
func program(ctx context.Context, task task, stdout io.Writer) error {
	spec, opts := task.spec, task.opts
	if opts.NetNS != "" {
		runtime.LockOSThread() // only this thread is in the other namespace
		if err := kernel.Enter(opts.NetNS); err != nil {
			return err
		}
	}
	if opts.DryRun {
		return dryRun(spec, opts, stdout)
	}
	if err := leaveFiles(task); err != nil {
		return err
	}
	host, err := kernel.Open(ctx, opts)
	if err != nil {
		return err
	}
	defer host.Close()
	job := job{host: host, spec: spec, want: host.Wanted(spec), stdout: stdout}
	if opts.Prove {
		if err := job.prove(ctx); err != nil {
			return err
		}
	}
	switch opts.Action() {
	case interception.ActionRemove:
		return job.remove(ctx)
	case interception.ActionVerify:
		return job.verify(ctx)
	default:
		return job.apply(ctx, !opts.SkipVerify)
	}
}

// leaveFiles leaves the proxy its files, if the task says where.
func leaveFiles(task task) error {
	if task.opts.Share == "" {
		return nil
	}
	files := shared{resolvers: task.resolvers}
	if task.opts.Envoy != "" {
		var err error
		if files.bootstrap, err = bootstrap(task.spec.Mode(), task.spec, task.settings, task.opts.IPv6); err != nil {
			return err
		}
	}
	return share(task.opts.Share, files)
}

// dryRun prints the rules without looking at the namespace.
func dryRun(spec interception.Spec, opts interception.Options, stdout io.Writer) error {
	for _, family := range ruleset.Families {
		if family == ruleset.IPv6 && opts.IPv6 == interception.IPv6Off {
			continue
		}
		text, err := nft.Text(ruleset.Build(spec, family), opts.Backend)
		if err == nil {
			_, err = fmt.Fprintf(stdout, "# %s\n%s", family, text)
		}
		if err != nil {
			return fmt.Errorf("printing the rules: %w", err)
		}
	}
	return nil
}
