//go:build linux

package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/spf13/pflag"

	"github.com/shunt-dev/shunt/cmd/internal/daemon"
	"github.com/shunt-dev/shunt/cmd/shunt-node/internal/agent"
)

// settings are the values of all arguments.
type settings struct {
	options                      agent.Options
	metricsAddress, probeAddress string
	kubeconfig                   string
	log                          daemon.Log
	version                      bool
}

// raw holds the flags' values before they are checked.
type raw struct {
	settings
	onChange string
	flags    *pflag.FlagSet
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
		daemon.CheckAddress("metrics-bind-address", values.metricsAddress),
		daemon.CheckAddress("health-probe-bind-address", values.probeAddress),
		values.log.Check())
	if values.metricsAddress == values.probeAddress && values.metricsAddress != "0" {
		errs = append(errs, fmt.Errorf("--health-probe-bind-address: invalid value %q; accepted: another than --metrics-bind-address",
			values.probeAddress))
	}
	return values.settings, daemon.BadArguments(errors.Join(errs...))
}
