//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/spf13/pflag"

	"github.com/shunt-dev/shunt/cmd/shunt-node/internal/agent"
	"github.com/shunt-dev/shunt/initimage/interception"
)

// settings are the values of all arguments.
type settings struct {
	options                      agent.Options
	metricsAddress, probeAddress string
	kubeconfig                   string
	logLevel                     slog.Level
	logFormat                    string
	version                      bool
}

// raw holds the flags' values before they are checked.
type raw struct {
	settings
	onChange  string
	levelName string
	flags     *pflag.FlagSet
}

// Values of --on-change.
const (
	onChangeRepair = "repair"
	onChangeReport = "report"
)

func newFlags() *raw {
	values := &raw{flags: pflag.NewFlagSet("shunt-node", pflag.ContinueOnError)}
	flags := values.flags
	flags.SortFlags = false
	flags.Usage = func() {}
	flags.StringVar(&values.options.Socket, "nri-socket", api.DefaultSocketPath, "where the container runtime serves NRI")
	flags.DurationVar(&values.options.Resync, "resync", 5*time.Minute,
		"how often every pod's rules are compared with what they should be; 0s for never")
	flags.StringVar(&values.onChange, "on-change", onChangeRepair,
		"what is done about rules that somebody has changed: repair puts them back; report leaves them, with an Event")
	flags.StringVar(&values.metricsAddress, "metrics-bind-address", ":8080", "host:port of /metrics; 0 for none")
	flags.StringVar(&values.probeAddress, "health-probe-bind-address", ":8081", "host:port of /healthz and /readyz; 0 for none")
	flags.StringVar(&values.kubeconfig, "kubeconfig", "", "file that says where the API server is; the pod's service account without it")
	flags.StringVar(&values.levelName, "log-level", "info", "least that is logged: debug, info, warn or error")
	flags.StringVar(&values.logFormat, "log-format", "json", "json or text")
	flags.BoolVar(&values.version, "version", false, "print the version and stop")
	return values
}

func usage() string { return newFlags().flags.FlagUsages() }

// parse reads and checks the arguments. The error names every invalid one, its
// value and what is accepted. pflag.ErrHelp asks for usage.
func parse(args []string) (settings, error) {
	values := newFlags()
	if err := values.flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return settings{}, err
		}
		return settings{}, badArguments(fmt.Errorf("%w; accepted: the flags that --help lists", err))
	}
	if values.version {
		return settings{version: true}, nil
	}
	var errs []error
	for _, word := range values.flags.Args() {
		errs = append(errs, fmt.Errorf("unexpected argument %q; accepted: flags only", word))
	}
	if values.options.Socket == "" {
		errs = append(errs, fmt.Errorf(`--nri-socket: invalid value ""; accepted: a path`))
	}
	if resync := values.options.Resync; resync < 0 || 0 < resync && resync < time.Second {
		errs = append(errs, fmt.Errorf("--resync: invalid value %s; accepted: 1s or longer, or 0s for never", resync))
	}
	if !slices.Contains([]string{onChangeRepair, onChangeReport}, values.onChange) {
		errs = append(errs, fmt.Errorf("--on-change: invalid value %q; accepted: repair, report", values.onChange))
	}
	values.options.Repair = values.onChange == onChangeRepair
	errs = append(errs,
		checkAddress("metrics-bind-address", values.metricsAddress),
		checkAddress("health-probe-bind-address", values.probeAddress))
	if values.metricsAddress == values.probeAddress && values.metricsAddress != "0" {
		errs = append(errs, fmt.Errorf("--health-probe-bind-address: invalid value %q; accepted: another than --metrics-bind-address",
			values.probeAddress))
	}
	if err := values.logLevel.UnmarshalText([]byte(values.levelName)); err != nil {
		errs = append(errs, fmt.Errorf("--log-level: invalid value %q; accepted: debug, info, warn, error", values.levelName))
	}
	if !slices.Contains([]string{"json", "text"}, values.logFormat) {
		errs = append(errs, fmt.Errorf("--log-format: invalid value %q; accepted: json, text", values.logFormat))
	}
	return values.settings, badArguments(errors.Join(errs...))
}

// argumentsError lists what is wrong, one argument a line.
type argumentsError struct{ error }

func (argumentsError) Is(target error) bool { return target == errArguments }
func (e argumentsError) Unwrap() error      { return e.error }

func badArguments(err error) error {
	if err == nil {
		return nil
	}
	return argumentsError{err}
}

func checkAddress(flag, address string) error {
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

func (s settings) logHandler(w io.Writer) slog.Handler {
	opts := &slog.HandlerOptions{Level: s.logLevel}
	if s.logFormat == "text" {
		return slog.NewTextHandler(w, opts)
	}
	return slog.NewJSONHandler(w, opts)
}
