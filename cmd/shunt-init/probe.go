//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/spf13/pflag"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// probeCommand is the first argument that asks whether a port is open.
const probeCommand = "probe"

// errProbe means that nothing accepted a connection.
var errProbe = errors.New("no connection")

const defaultProbeTimeout = "1s" // the default of a kubelet probe

// runProbe connects to a port of the pod as kubelet's tcpSocket probe does, but
// from within. The proxy would accept kubelet's own connection whether or not the
// app listens. The pod's connections to itself are not intercepted.
func runProbe(ctx context.Context, args []string, stdout io.Writer) error {
	port, patience, err := probeArguments(args)
	if errors.Is(err, pflag.ErrHelp) {
		flags, _, _ := probeFlags()
		_, err := fmt.Fprint(stdout, "Usage: shunt-init probe --port PORT [flags]\n\n", flags.FlagUsages())
		return err
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return probe(ctx, port)
}

// probeArguments reads the arguments, and returns everything that is wrong with
// them.
func probeArguments(args []string) (port uint16, patience time.Duration, err error) {
	flags, portText, timeout := probeFlags()
	if err := flags.Parse(args); errors.Is(err, pflag.ErrHelp) {
		return 0, 0, err
	} else if err != nil {
		return 0, 0, fmt.Errorf("%w; accepted: the flags that probe --help lists", err)
	}
	var errs []error
	invalid := func(flag, value, accepted string) {
		errs = append(errs, &interception.FlagError{Flag: flag, Err: &interception.ValueError{Value: value, Accepted: accepted}})
	}
	for _, word := range flags.Args() {
		errs = append(errs, fmt.Errorf("unexpected argument %q; accepted: flags only", word))
	}
	port, err = interception.ParsePort(*portText)
	if err != nil {
		invalid("--port", *portText, "a port from 1 to 65535")
	}
	patience, err = time.ParseDuration(*timeout)
	if err != nil || patience <= 0 {
		invalid("--timeout", *timeout, "a time above 0 such as "+defaultProbeTimeout)
	}
	return port, patience, errors.Join(errs...)
}

func probeFlags() (flags *pflag.FlagSet, port, timeout *string) {
	flags = pflag.NewFlagSet("shunt-init probe", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.Usage = func() {}
	port = flags.String("port", "", "`port` to connect to, tcp")
	timeout = flags.String("timeout", defaultProbeTimeout, "`time` after which a connection counts as refused")
	return flags, port, timeout
}

// probeDelay is how long one address is waited for before the next is tried as
// well.
const probeDelay = 100 * time.Millisecond

// probe tries every address of the pod. kubelet uses the first, which is not known
// here, and the app may listen on it alone. Loopback is not tried: kubelet could
// not reach it either. The addresses are tried in turn, so that the app sees one
// connection. But an IPv6 address under duplicate address detection swallows
// packets, and must not use up the time of the addresses after it.
func probe(ctx context.Context, port uint16) error {
	addrs, err := podAddresses()
	if err != nil {
		return fmt.Errorf("%w: %w", errProbe, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan error, len(addrs))
	untried := addrs
	var errs []error
	for len(errs) < len(addrs) {
		var delay <-chan time.Time
		if len(untried) > 0 {
			address := netip.AddrPortFrom(untried[0], port)
			untried = untried[1:]
			go func() { results <- connect(ctx, address) }()
			delay = time.After(probeDelay)
		}
		select {
		case err := <-results:
			if err == nil {
				return nil
			}
			errs = append(errs, fmt.Errorf("%w: %w", errProbe, err))
		case <-delay:
		}
	}
	return errors.Join(errs...)
}

func connect(ctx context.Context, address netip.AddrPort) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address.String())
	if err != nil {
		return err
	}
	return conn.Close()
}

// podAddresses returns the global addresses of the pod's interfaces, at least one.
func podAddresses() ([]netip.Addr, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("listing the pod's interfaces: %w", err)
	}
	var addrs []netip.Addr
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback != 0 {
			continue
		}
		all, err := i.Addrs()
		if err != nil {
			return nil, fmt.Errorf("listing the addresses of %s: %w", i.Name, err)
		}
		for _, one := range all {
			prefix, err := netip.ParsePrefix(one.String())
			if err == nil && prefix.Addr().IsGlobalUnicast() {
				addrs = append(addrs, prefix.Addr())
			}
		}
	}
	if len(addrs) == 0 {
		return nil, errors.New("the pod has no address but loopback")
	}
	return addrs, nil
}
