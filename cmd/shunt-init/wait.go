//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// waitCommand is the first argument that asks to wait for the proxy in place of
// making rules.
const waitCommand = "wait"

const (
	defaultWaitDuration = "10m"
	// waitInterval is how long to wait between two looks.
	waitInterval = 100 * time.Millisecond
	// lookTimeout is how long an answer may take: as long as that of the proxy's
	// startup probe.
	lookTimeout = 3 * time.Second
	// maxStatusLine bounds what is read of an answer.
	maxStatusLine = 4 << 10
)

// errWait is that the proxy did not answer in time.
var errWait = errors.New("no answer")

// loopback is where the proxy is asked, which runs in the same container. Its
// connections to itself are not intercepted there.
var loopback = []string{"127.0.0.1", "::1"}

// awaited is what has to answer.
type awaited struct {
	port string
	path string // of HTTP; empty where a connection is enough
	most time.Duration
}

// runWait waits until the proxy answers, in the proxy's container: as the hook
// that kubelet waits for before it starts the next container.
func runWait(ctx context.Context, args []string, stdout io.Writer) error {
	a, err := waitArguments(args)
	if errors.Is(err, pflag.ErrHelp) {
		flags, _, _ := waitFlags()
		_, err := fmt.Fprint(stdout, "Usage: shunt-init wait --port PORT [flags]\n\n", flags.FlagUsages())
		return err
	}
	if err != nil {
		return err
	}
	debug.SetGCPercent(gcPercent) // which main has switched off; this may take long
	start := time.Now()
	if err := a.wait(ctx); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "shunt-init: wait: port %s answers, after %s\n", a.port, time.Since(start).Round(time.Millisecond))
	return err
}

func waitFlags() (flags *pflag.FlagSet, a *awaited, duration *string) {
	flags, a = pflag.NewFlagSet("shunt-init wait", pflag.ContinueOnError), &awaited{}
	flags.SortFlags = false
	flags.Usage = func() {}
	flags.StringVar(&a.port, "port", "", "`port` on loopback that is to answer, tcp")
	flags.StringVar(&a.path, "path", "",
		"`path` that is to be answered with an HTTP code from 200 to 399; without it a connection is enough")
	duration = flags.String("duration", defaultWaitDuration, "`time` after which to give up")
	return flags, a, duration
}

// waitArguments reads the arguments, and returns all that is wrong with them.
func waitArguments(args []string) (awaited, error) {
	flags, a, duration := waitFlags()
	if err := flags.Parse(args); errors.Is(err, pflag.ErrHelp) {
		return awaited{}, err
	} else if err != nil {
		return awaited{}, fmt.Errorf("%w; accepted: the flags that wait --help lists", err)
	}
	var errs []error
	wrong := func(flag, value, accepted string) {
		errs = append(errs, &interception.FlagError{Flag: flag, Err: &interception.ValueError{Value: value, Accepted: accepted}})
	}
	for _, word := range flags.Args() {
		errs = append(errs, fmt.Errorf("unexpected argument %q; accepted: flags only", word))
	}
	if _, err := interception.ParsePort(a.port); err != nil {
		wrong("--port", a.port, "a port from 1 to 65535")
	}
	printable := strings.IndexFunc(a.path, func(r rune) bool { return r <= ' ' || r >= 0x7f }) < 0
	if a.path != "" && !strings.HasPrefix(a.path, "/") || !printable {
		wrong("--path", a.path, "a path such as /healthz/ready")
	}
	most, err := time.ParseDuration(*duration)
	if err != nil || most <= 0 {
		wrong("--duration", *duration, "a time above 0 such as "+defaultWaitDuration)
	}
	a.most = most
	return *a, errors.Join(errs...)
}

// wait looks again and again. The error is that of the last
// look that had the time for one.
func (a awaited) wait(ctx context.Context) error {
	end := time.Now().Add(a.most)
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	ticks := time.NewTicker(waitInterval)
	defer ticks.Stop()
	var last error
	for {
		err := a.look(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil && time.Now().Before(end) { // not a look that the end of the time cut off
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w within %s: %w", errWait, a.most, last)
		case <-ticks.C:
		}
	}
}

// look asks every address once; one that answers is enough.
func (a awaited) look(ctx context.Context) error {
	var errs []error
	for _, host := range loopback {
		err := a.ask(ctx, net.JoinHostPort(host, a.port))
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (a awaited) ask(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if a.path == "" {
		return nil
	}
	// The end of the context ends what waits on the connection, too.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", a.path, address); err != nil {
		return err
	}
	status, err := bufio.NewReader(io.LimitReader(conn, maxStatusLine)).ReadString('\n')
	if err != nil {
		return fmt.Errorf("reading the answer of %s: %w", address, err)
	}
	// HTTP/1.1 200 OK
	version, code, _ := strings.Cut(strings.TrimSpace(status), " ")
	if !strings.HasPrefix(version, "HTTP/1.") || !strings.HasPrefix(code, "2") && !strings.HasPrefix(code, "3") {
		return fmt.Errorf("the answer of %s is %q; accepted: an HTTP code from 200 to 399", address, strings.TrimSpace(status))
	}
	return nil
}
