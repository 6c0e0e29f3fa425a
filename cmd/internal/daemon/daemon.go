// Package daemon is what the programs that serve until they are stopped have in
// common: a signal flows in, and the exit code flows out; the flags of the log, and
// what is wrong with arguments.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// Exit codes.
const (
	ExitDone      = 0
	ExitFailed    = 1
	ExitArguments = 2
)

// Main calls run with a context that SIGINT and SIGTERM end, prints its error, and
// ends the process with its exit code. A second signal ends the process at once.
func Main(name string, run func(ctx context.Context, args []string, stdout, stderr io.Writer) error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintln(os.Stderr, name+": "+strings.TrimSuffix(line, "\n"))
		}
	}
	os.Exit(ExitCode(err))
}

// ExitCode returns the exit code for what run returns.
func ExitCode(err error) int {
	var arguments argumentsError
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &arguments):
		return ExitArguments
	default:
		return ExitFailed
	}
}

// argumentsError lists what is wrong with the caller's arguments, one a line.
type argumentsError struct{ error }

func (e argumentsError) Unwrap() error { return e.error }

// BadArguments makes an error one in the caller's arguments. It returns nil for nil.
func BadArguments(err error) error {
	if err == nil {
		return nil
	}
	return argumentsError{err}
}

// CheckAddress checks the value of a flag that is an address to listen at, or 0.
func CheckAddress(flag, address string) error {
	if address == "0" {
		return nil
	}
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = interception.ParsePort(port)
	}
	if err != nil {
		return fmt.Errorf("--%s: invalid value %q; accepted: host:port such as :8080, or 0 for none", flag, address)
	}
	return nil
}
