//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// waitCommand is the first argument that asks to wait for the proxy.
const waitCommand = "wait"

const (
	defaultWaitDuration = "10m"
	// The pause between two tries is a tenth of the time so far, within these: a
	// proxy that is soon there is soon seen, and one with little CPU keeps it.
	minPause, maxPause = 10 * time.Millisecond, 250 * time.Millisecond
	// tryTimeout is how long an answer may take: as long as for the proxy's startup
	// probe.
	tryTimeout = 3 * time.Second
	// terminationLog is Kubernetes' default terminationMessagePath.
	terminationLog = "/dev/termination-log"
	// maxStatusLine bounds how much of an answer is read.
	maxStatusLine = 4 << 10
)

// errWait means that the proxy did not answer in time.
var errWait = errors.New("no answer")

// loopback is where the proxy answers, in the same container. Its connections to
// itself are not intercepted.
var loopback = []string{"127.0.0.1", "::1"}

// waitTarget is what has to answer.
type waitTarget struct {
	port    string
	path    string // of HTTP; empty if a connection is enough
	timeout time.Duration
}

// runWait waits in the proxy's container until the proxy answers. kubelet runs it
// as a hook, and waits for it before it starts the next container.
func runWait(ctx context.Context, args []string, stdout io.Writer) error {
	target, err := waitArguments(args)
	if errors.Is(err, pflag.ErrHelp) {
		flags, _, _ := waitFlags()
		_, err := fmt.Fprint(stdout, "Usage: shunt-init wait --port PORT [flags]\n\n", flags.FlagUsages())
		return err
	}
	if err != nil {
		return err
	}
	debug.SetGCPercent(gcPercent) // main has disabled it, and this may take long
	start := time.Now()
	if err := target.wait(ctx); err != nil {
		return errors.Join(err, leaveMessage(terminationLog, err))
	}
	_, err = fmt.Fprintf(stdout, "shunt-init: wait: port %s answers, after %s\n", target.port, time.Since(start).Round(time.Millisecond))
	return err
}

// leaveMessage writes why the proxy is restarted where kubelet shows it as the
// message of the container: it does not show what a hook prints. Elsewhere than in
// a container there is no such file.
func leaveMessage(path string, why error) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("leaving the message for kubelet: %w", err)
	}
	_, err = fmt.Fprintf(file, "shunt-init: wait: %s\n", why)
	return errors.Join(err, file.Close())
}

func waitFlags() (flags *pflag.FlagSet, target *waitTarget, duration *string) {
	flags, target = pflag.NewFlagSet("shunt-init wait", pflag.ContinueOnError), &waitTarget{}
	flags.SortFlags = false
	flags.Usage = func() {}
	flags.StringVar(&target.port, "port", "", "`port` on loopback that is to answer, tcp")
	flags.StringVar(&target.path, "path", "",
		"`path` that is to be answered with an HTTP code from 200 to 399; without it a connection is enough")
	duration = flags.String("duration", defaultWaitDuration, "`time` after which to give up")
	return flags, target, duration
}

// waitArguments reads the arguments, and returns everything that is wrong with
// them.
func waitArguments(args []string) (waitTarget, error) {
	flags, target, duration := waitFlags()
	if err := flags.Parse(args); errors.Is(err, pflag.ErrHelp) {
		return waitTarget{}, err
	} else if err != nil {
		return waitTarget{}, fmt.Errorf("%w; accepted: the flags that wait --help lists", err)
	}
	var errs []error
	invalid := func(flag, value, accepted string) {
		errs = append(errs, &interception.FlagError{Flag: flag, Err: &interception.ValueError{Value: value, Accepted: accepted}})
	}
	for _, word := range flags.Args() {
		errs = append(errs, fmt.Errorf("unexpected argument %q; accepted: flags only", word))
	}
	if _, err := interception.ParsePort(target.port); err != nil {
		invalid("--port", target.port, "a port from 1 to 65535")
	}
	printable := strings.IndexFunc(target.path, func(r rune) bool { return r <= ' ' || r >= 0x7f }) < 0
	if target.path != "" && !strings.HasPrefix(target.path, "/") || !printable {
		invalid("--path", target.path, "a path such as /healthz/ready")
	}
	timeout, err := time.ParseDuration(*duration)
	if err != nil || timeout <= 0 {
		invalid("--duration", *duration, "a time above 0 such as "+defaultWaitDuration)
	}
	target.timeout = timeout
	return *target, errors.Join(errs...)
}

// wait tries again and again. Its error is that of the last try that had enough
// time.
func (a waitTarget) wait(ctx context.Context) error {
	start := time.Now()
	end := start.Add(a.timeout)
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	var last error
	for {
		err := a.tryAll(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil && time.Now().Before(end) { // not a try that the deadline cut short
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w within %s: %w", errWait, a.timeout, last)
		case <-time.After(min(max(time.Since(start)/10, minPause), maxPause)):
		}
	}
}

// tryAll tries every address once; one that answers is enough. Its error is one
// line, which kubelet shows as a whole.
func (a waitTarget) tryAll(ctx context.Context) error {
	var all error
	for _, host := range loopback {
		err := a.try(ctx, net.JoinHostPort(host, a.port))
		if err == nil {
			return nil
		}
		if all != nil {
			err = fmt.Errorf("%w; %w", all, err)
		}
		all = err
	}
	return all
}

func (a waitTarget) try(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
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
	// The end of the context also ends reads and writes of the connection.
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
