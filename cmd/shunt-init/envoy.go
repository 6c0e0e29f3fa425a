//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/pflag"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// runShare leaves the proxy its files. It needs no capability.
func runShare(_ context.Context, args []string, stdout io.Writer) error {
	flags := pflag.NewFlagSet("shunt-init share", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.Usage = func() {}
	text := flags.String("envoy", "{}", "`settings` of the Envoy whose bootstrap is left there, in JSON, for interception mode NONE")
	if err := flags.Parse(args); errors.Is(err, pflag.ErrHelp) {
		_, err := fmt.Fprint(stdout, "Usage: shunt-init share [flags] DIRECTORY\n\n", flags.FlagUsages())
		return err
	} else if err != nil {
		return fmt.Errorf("%w; accepted: the flags that share --help lists", err)
	}
	if flags.NArg() != 1 || !filepath.IsAbs(flags.Arg(0)) {
		return fmt.Errorf("invalid arguments %q; accepted: the absolute path of the folder to leave files in", flags.Args())
	}
	settings, err := envoy.ParseSettings(*text)
	if err != nil {
		return fmt.Errorf("--envoy: %w", err)
	}
	written, err := bootstrap(interception.ModeNone, interception.Default(), settings, interception.IPv6Auto)
	if err != nil {
		return err
	}
	if err := share(flags.Arg(0), shared{bootstrap: written}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "shunt-init: left Envoy's bootstrap in %s; nothing is intercepted\n", flags.Arg(0))
	return err
}

// bootstrap returns what Envoy is to start with in this network namespace.
func bootstrap(mode interception.Mode, spec interception.Spec, settings envoy.Settings, ipv6 interception.IPv6) ([]byte, error) {
	families, err := kernel.FamiliesOf(ipv6)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", kernel.ErrPreflight, err)
	}
	host := envoy.Host{IPv6: slices.Contains(families, ruleset.IPv6), BindToLoopback: kernel.MayBindToLoopback()}
	if len(settings.Probes) > 0 {
		if host.NodeAddresses, err = nodeAddresses(families); err != nil {
			return nil, err
		}
	}
	return envoy.Bootstrap(mode, spec, settings, host), nil
}

// nodeAddresses returns where kubelet's probes may come from: the node's address,
// which the injector has Kubernetes set, or the pod's gateway.
func nodeAddresses(families []ruleset.Family) ([]netip.Addr, error) {
	all, err := kernel.Gateways(families)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", kernel.ErrPreflight, err)
	}
	if node, err := netip.ParseAddr(os.Getenv(envoy.NodeVariable)); err == nil && !slices.Contains(all, node) {
		all = append(all, node)
	}
	return all, nil
}
