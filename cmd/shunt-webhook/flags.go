package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/shunt-dev/shunt/cmd/internal/daemon"
	"github.com/shunt-dev/shunt/cmd/internal/injectflags"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/webhook"
)

// settings are the values of all arguments.
type settings struct {
	config     config.Config
	options    webhook.Options
	selfSigned selfSigned
	kubeconfig string
	// shutdownDelay is how long the webhook serves on after it is told to stop.
	shutdownDelay time.Duration
	log           daemon.Log
	version       bool
}

// raw holds the flags' values before they are checked.
type raw struct {
	settings
	flags *pflag.FlagSet
}

func newFlags() *raw {
	values := &raw{flags: pflag.NewFlagSet("shunt-webhook", pflag.ContinueOnError)}
	flags, defaults := values.flags, webhook.DefaultOptions()
	flags.SortFlags = false
	flags.Usage = func() {}
	injectflags.Add(flags)
	flags.IntVar(&values.options.Port, "webhook-port", defaults.Port, "port of the webhook, HTTPS")
	flags.StringVar(&values.options.CertDir, "cert-dir", defaults.CertDir, "folder with tls.crt and tls.key, read again when they change")
	flags.StringVar(&values.options.ClientCAFile, "client-ca-file", "",
		"PEM file with the CA that API servers need a certificate of; read at the start; without it everybody is answered")
	values.selfSigned.add(flags)
	flags.StringVar(&values.options.MetricsAddress, "metrics-bind-address", defaults.MetricsAddress, "host:port of /metrics; 0 for none")
	flags.StringVar(&values.options.ProbeAddress, "health-probe-bind-address", defaults.ProbeAddress,
		"host:port of /healthz and /readyz; 0 for none")
	flags.StringVar(&values.options.DebugAddress, "debug-bind-address", defaults.DebugAddress,
		"host:port of /configuration, the one in force, and of /debug/pprof, Go's profiles; without a host on loopback; 0 for none")
	flags.DurationVar(&values.options.CountPods, "count-pods", 0,
		"how often the cluster's pods are counted by whether they have the proxy as they should, for a metric; 1m or longer, 0s for never")
	flags.StringVar(&values.kubeconfig, "kubeconfig", "", "file that says where the API server is; the pod's service account without it")
	flags.DurationVar(&values.shutdownDelay, "shutdown-delay", 5*time.Second,
		"how long to serve on after SIGTERM, until nobody sends requests any more; 0s to 20s")
	values.log.Add(flags)
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
		return settings{}, daemon.BadArguments(fmt.Errorf("%w; accepted: the flags that --help lists", err))
	}
	if values.version {
		return settings{version: true}, nil
	}
	var err error
	values.config, err = withImages(injectflags.Config(values.flags))
	errs := []error{err}
	values.options.Config = webhook.ConfigFile{
		Path: injectflags.File(values.flags),
		Parse: func(text []byte, beside config.ReadFile) (config.Config, error) {
			return withImages(injectflags.Parse(values.flags, text, beside))
		},
	}
	for _, word := range values.flags.Args() {
		errs = append(errs, fmt.Errorf("unexpected argument %q; accepted: flags only", word))
	}
	if port := values.options.Port; port < 1 || port > 65535 {
		errs = append(errs, fmt.Errorf("--webhook-port: invalid value %d; accepted: a port from 1 to 65535", port))
	}
	if delay := values.shutdownDelay; delay < 0 || delay > 20*time.Second {
		errs = append(errs, fmt.Errorf("--shutdown-delay: invalid value %s; accepted: 0s to 20s", delay))
	}
	if every := values.options.CountPods; every < 0 || 0 < every && every < time.Minute {
		errs = append(errs, fmt.Errorf("--count-pods: invalid value %s; accepted: 1m or longer, or 0s for never", every))
	}
	if values.options.CertDir == "" {
		errs = append(errs, fmt.Errorf(`--cert-dir: invalid value ""; accepted: a folder`))
	}
	errs = append(errs,
		daemon.CheckAddress("metrics-bind-address", values.options.MetricsAddress),
		daemon.CheckAddress("health-probe-bind-address", values.options.ProbeAddress),
		daemon.CheckAddress("debug-bind-address", values.options.DebugAddress),
		values.log.Check())
	values.options.DebugAddress = onLoopback(values.options.DebugAddress)
	return values.settings, daemon.BadArguments(errors.Join(errs...))
}

// withImages returns an error for images that no node can pull: with them, every
// pod that is injected would wait for ever.
func withImages(cfg config.Config, err error) (config.Config, error) {
	if unset := cfg.UnsetImages().ToAggregate(); err == nil && unset != nil {
		return config.Config{}, injectflags.Faults("--config: ", unset)
	}
	return cfg, err
}

// onLoopback adds loopback to an address without a host: profiles show what is in
// memory, so others see them only on request.
func onLoopback(address string) string {
	if strings.HasPrefix(address, ":") {
		return "127.0.0.1" + address
	}
	return address
}
