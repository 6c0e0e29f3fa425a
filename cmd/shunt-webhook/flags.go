package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/shunt-dev/shunt/cmd/internal/injectflags"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/webhook"
)

// settings are all that the arguments say.
type settings struct {
	config     config.Config
	options    webhook.Options
	selfSigned selfSigned
	kubeconfig string
	// shutdownDelay is how long it serves on when it is told to end.
	shutdownDelay time.Duration
	logLevel      slog.Level
	logFormat     string
	version       bool
}

// raw are the flags' values before they are checked.
type raw struct {
	settings
	levelName string
	flags     *pflag.FlagSet
}

func newFlags() *raw {
	r := &raw{flags: pflag.NewFlagSet("shunt-webhook", pflag.ContinueOnError)}
	fs, defaults := r.flags, webhook.DefaultOptions()
	fs.SortFlags = false
	fs.Usage = func() {}
	injectflags.Add(fs)
	fs.IntVar(&r.options.Port, "webhook-port", defaults.Port, "port of the webhook, HTTPS")
	fs.StringVar(&r.options.CertDir, "cert-dir", defaults.CertDir, "folder with tls.crt and tls.key, read again when they change")
	fs.StringVar(&r.options.ClientCAFile, "client-ca-file", "",
		"PEM file with the CA that API servers need a certificate of; read at the start; without it everybody is answered")
	r.selfSigned.add(fs)
	fs.StringVar(&r.options.MetricsAddress, "metrics-bind-address", defaults.MetricsAddress, "host:port of /metrics; 0 for none")
	fs.StringVar(&r.options.ProbeAddress, "health-probe-bind-address", defaults.ProbeAddress,
		"host:port of /healthz and /readyz; 0 for none")
	fs.StringVar(&r.options.PprofAddress, "pprof-bind-address", "0",
		"host:port of /debug/pprof, Go's profiles; without a host on loopback; 0 for none")
	fs.StringVar(&r.kubeconfig, "kubeconfig", "", "file that says where the API server is; the pod's service account without it")
	fs.DurationVar(&r.shutdownDelay, "shutdown-delay", 5*time.Second,
		"how long to serve on after SIGTERM, until nobody sends requests any more; 0s to 20s")
	fs.StringVar(&r.levelName, "log-level", "info", "least that is logged: debug, info, warn or error")
	fs.StringVar(&r.logFormat, "log-format", "json", "json or text")
	fs.BoolVar(&r.version, "version", false, "print the version and stop")
	return r
}

func usage() string { return newFlags().flags.FlagUsages() }

// parse reads and checks the arguments. The error names every one that is
// wrong, its value and what is accepted; pflag.ErrHelp asks for usage.
func parse(args []string) (settings, error) {
	r := newFlags()
	if err := r.flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return settings{}, err
		}
		return settings{}, badArguments(fmt.Errorf("%w; accepted: the flags that --help lists", err))
	}
	if r.version {
		return settings{version: true}, nil
	}
	var err error
	r.config, err = injectflags.Config(r.flags)
	errs := []error{err}
	r.options.Config = webhook.ConfigFile{
		Path:  injectflags.File(r.flags),
		Parse: func(text []byte) (config.Config, error) { return injectflags.Parse(r.flags, text) },
	}
	for _, word := range r.flags.Args() {
		errs = append(errs, fmt.Errorf("unexpected argument %q; accepted: flags only", word))
	}
	if port := r.options.Port; port < 1 || port > 65535 {
		errs = append(errs, fmt.Errorf("--webhook-port: invalid value %d; accepted: a port from 1 to 65535", port))
	}
	if delay := r.shutdownDelay; delay < 0 || delay > 20*time.Second {
		errs = append(errs, fmt.Errorf("--shutdown-delay: invalid value %s; accepted: 0s to 20s", delay))
	}
	if r.options.CertDir == "" {
		errs = append(errs, fmt.Errorf(`--cert-dir: invalid value ""; accepted: a folder`))
	}
	errs = append(errs,
		checkAddress("metrics-bind-address", r.options.MetricsAddress),
		checkAddress("health-probe-bind-address", r.options.ProbeAddress),
		checkAddress("pprof-bind-address", r.options.PprofAddress),
		r.readLevel())
	if !slices.Contains([]string{"json", "text"}, r.logFormat) {
		errs = append(errs, fmt.Errorf("--log-format: invalid value %q; accepted: json, text", r.logFormat))
	}
	r.options.PprofAddress = onLoopback(r.options.PprofAddress)
	return r.settings, badArguments(errors.Join(errs...))
}

// argumentsError says what is wrong in a line for each argument.
type argumentsError struct{ error }

func (argumentsError) Is(target error) bool { return target == errArguments }
func (e argumentsError) Unwrap() error      { return e.error }

func badArguments(err error) error {
	if err == nil {
		return nil
	}
	return argumentsError{err}
}

func (r *raw) readLevel() error {
	levels := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}
	level, ok := levels[r.levelName]
	if !ok {
		return fmt.Errorf("--log-level: invalid value %q; accepted: debug, info, warn, error", r.levelName)
	}
	r.logLevel = level
	return nil
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

// onLoopback puts in the host that an address does not name: profiles show
// what is in memory, so that others see them only where that is asked for.
func onLoopback(address string) string {
	if strings.HasPrefix(address, ":") {
		return "127.0.0.1" + address
	}
	return address
}

func (s settings) logHandler(w io.Writer) slog.Handler {
	opts := &slog.HandlerOptions{Level: s.logLevel}
	if s.logFormat == "text" {
		return slog.NewTextHandler(w, opts)
	}
	return slog.NewJSONHandler(w, opts)
}
