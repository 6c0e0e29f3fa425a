//go:build linux

// Command demo shows Shunt at work on one machine, without a cluster: it is
// `make demo`.
//
//	samples ─ AdmissionReview over HTTPS ─► webhook ─ JSON patch ─► injected pod
//	injected pod ─ init container's arguments ─► shunt-init ─► rules in the pod's namespace
//	             └ sidecar's command, user and capabilities ─► Envoy
//	client, app, outside ─ real connections ─► a table of the ways they went
//
// It plays API server, kubelet and network, and nothing of what it shows. It
// takes root. Everything is held by this process and goes with it, also when it
// is killed: the network namespaces have no name, and the processes in them
// die with their parent. Only a kill -9 leaves a folder, of the pod's volumes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/container"
)

func main() {
	container.Main()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:], os.Stdout)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case interrupted:
		fmt.Fprintln(os.Stderr, "demo: interrupted; all that it started is gone")
		os.Exit(130)
	default:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	bin, envoy, samples string
}

func parseOptions(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.StringVar(&o.bin, "bin", "bin", "`folder` with shunt-init")
	flags.StringVar(&o.envoy, "envoy", os.Getenv("ENVOY"), "Envoy's `path`; the default is $ENVOY")
	flags.StringVar(&o.samples, "samples", "config/samples", "`folder` with the pods to inject")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q; accepted: flags only", flags.Arg(0))
	}
	if os.Geteuid() != 0 {
		return o, errors.New("network namespaces take root: sudo make demo")
	}
	if o.envoy == "" {
		return o, errors.New("-envoy and $ENVOY are both empty; accepted: the path of an Envoy binary, which hack/envoy.sh prints")
	}
	// A container's working directory is another one.
	for _, path := range []*string{&o.bin, &o.envoy} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return o, fmt.Errorf("making %s absolute: %w", *path, err)
		}
		*path = absolute
	}
	for _, file := range []string{o.envoy, o.shuntInit()} {
		if _, err := os.Stat(file); err != nil {
			return o, fmt.Errorf("finding what the demo runs (make build makes shunt-init): %w", err)
		}
	}
	return o, nil
}

func (o options) shuntInit() string { return filepath.Join(o.bin, "shunt-init") }

// narrator says what the demo does, a line a step.
type narrator struct {
	out   io.Writer
	start time.Time
}

func (n *narrator) say(format string, args ...any) {
	fmt.Fprintf(n.out, "[%4.1fs] %s\n", time.Since(n.start).Seconds(), fmt.Sprintf(format, args...))
}

// modes are shown one after the other.
var modes = []interception.Mode{interception.ModeRedirect, interception.ModeTProxy}

func run(ctx context.Context, args []string, out io.Writer) error {
	opts, err := parseOptions(args)
	if err != nil {
		return err
	}
	n := &narrator{out: out, start: time.Now()}
	pods, err := injectSamples(ctx, n, opts.samples)
	if err != nil {
		return err
	}
	var rows []row
	for _, mode := range modes {
		pod, err := podOfMode(pods, mode)
		if err != nil {
			return err
		}
		n.say("%s: pod %s", mode, pod.Name)
		shown, err := show(ctx, n, opts, mode, pod)
		if err != nil {
			return fmt.Errorf("%s: %w", mode, err)
		}
		rows = append(rows, shown...)
	}
	printTable(out, rows)
	if wrong := countWrong(rows); wrong > 0 {
		return fmt.Errorf("%d of %d connections did not go the way they should", wrong, len(rows))
	}
	n.say("all %d connections went the way they should", len(rows))
	return nil
}

// podOfMode returns the first injected pod of a mode.
func podOfMode(pods []*corev1.Pod, mode interception.Mode) (*corev1.Pod, error) {
	for _, pod := range pods {
		spec, err := specOf(pod)
		if err == nil && spec.Mode() == mode {
			return pod, nil
		}
	}
	return nil, fmt.Errorf("no sample came back injected in mode %s", mode)
}
