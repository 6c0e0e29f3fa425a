//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"time"

	"github.com/spf13/pflag"

	"github.com/shunt-dev/shunt/cmd/shunt-init/internal/drain"
	"github.com/shunt-dev/shunt/initimage/interception"
)

// drainCommand is the first argument that asks for a drain.
const drainCommand = "drain"

// gcPercent is Go's default.
const gcPercent = 100

// Defaults of drain.
const (
	defaultAdmin         = "127.0.0.1:15000"
	defaultDrainDuration = "25s"
)

// runDrain drains the proxy and reports on stdout how that ended. A signal ends it
// early and is no error: whoever sent it does not want to wait.
func runDrain(ctx context.Context, args []string, stdout io.Writer) error {
	admin, limit, err := drainArguments(args)
	if errors.Is(err, pflag.ErrHelp) {
		flags, _, _ := drainFlags()
		_, err := fmt.Fprint(stdout, "Usage: shunt-init drain [flags]\n\n", flags.FlagUsages())
		return err
	}
	if err != nil {
		return err
	}
	debug.SetGCPercent(gcPercent) // main has disabled it, and this may take long
	start := time.Now()
	left, err := drain.Run(ctx, admin, limit)
	if err != nil {
		return err
	}
	end := "no requests or connections left"
	switch {
	case ctx.Err() != nil:
		end = "ended by a signal"
	case left.Any():
		end = "time is up, " + left.String() + " left"
	}
	_, err = fmt.Fprintf(stdout, "shunt-init: drain: %s, after %s\n", end, time.Since(start).Round(time.Millisecond))
	return err
}

func drainFlags() (flags *pflag.FlagSet, admin, duration *string) {
	flags = pflag.NewFlagSet("shunt-init drain", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.Usage = func() {}
	admin = flags.String("admin", defaultAdmin, "`address` of the proxy's admin interface, which is Envoy's")
	duration = flags.String("duration", defaultDrainDuration, "`time` after which to stop waiting")
	return flags, admin, duration
}

// drainArguments reads the arguments, and returns everything that is wrong with
// them.
func drainArguments(args []string) (admin string, limit time.Duration, err error) {
	flags, address, duration := drainFlags()
	if err := flags.Parse(args); errors.Is(err, pflag.ErrHelp) {
		return "", 0, err
	} else if err != nil {
		return "", 0, fmt.Errorf("%w; accepted: the flags that drain --help lists", err)
	}
	var errs []error
	invalid := func(flag, value, accepted string) {
		errs = append(errs, &interception.FlagError{Flag: flag, Err: &interception.ValueError{Value: value, Accepted: accepted}})
	}
	for _, word := range flags.Args() {
		errs = append(errs, fmt.Errorf("unexpected argument %q; accepted: flags only", word))
	}
	host, port, err := net.SplitHostPort(*address)
	if _, badPort := interception.ParsePort(port); err != nil || badPort != nil || host == "" {
		invalid("--admin", *address, "a host and port such as "+defaultAdmin)
	}
	limit, err = time.ParseDuration(*duration)
	if err != nil || limit <= 0 {
		invalid("--duration", *duration, "a time above 0 such as "+defaultDrainDuration)
	}
	return *address, limit, errors.Join(errs...)
}
