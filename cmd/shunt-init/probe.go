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

// probeCommand is the first argument that asks whether a port is open in place
// of making rules.
const probeCommand = "probe"

// errProbe is that nothing took a connection.
var errProbe = errors.New("no connection")

const defaultProbeTimeout = "1s" // a kubelet probe's, unless told otherwise

// runProbe connects to a port of the pod as kubelet's tcpSocket probe does, but
// from within: kubelet's own connection would be taken by the proxy, whether or
// not the app listens. The pod's connections to itself are not intercepted.
func runProbe(ctx context.Context, args []string, stdout io.Writer) error {
	port, most, err := probeArguments(args)
	if errors.Is(err, pflag.ErrHelp) {
		flags, _, _ := probeFlags()
		_, err := fmt.Fprint(stdout, "Usage: shunt-init probe --port PORT [flags]\n\n", flags.FlagUsages())
		return err
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	return probe(ctx, port)
}

// probeArguments reads the arguments, and returns all that is wrong with them.
func probeArguments(args []string) (port uint16, most time.Duration, err error) {
	flags, portText, timeout := probeFlags()
	if err := flags.Parse(args); errors.Is(err, pflag.ErrHelp) {
		return 0, 0, err
	} else if err != nil {
		return 0, 0, fmt.Errorf("%w; accepted: the flags that probe --help lists", err)
	}
	var errs []error
	wrong := func(flag, value, accepted string) {
		errs = append(errs, &interception.FlagError{Flag: flag, Err: &interception.ValueError{Value: value, Accepted: accepted}})
	}
	for _, word := range flags.Args() {
		errs = append(errs, fmt.Errorf("unexpected argument %q; accepted: flags only", word))
	}
	port, err = interception.ParsePort(*portText)
	if err != nil {
		wrong("--port", *portText, "a port from 1 to 65535")
	}
	most, err = time.ParseDuration(*timeout)
	if err != nil || most <= 0 {
		wrong("--timeout", *timeout, "a time above 0 such as "+defaultProbeTimeout)
	}
	return port, most, errors.Join(errs...)
}

func probeFlags() (flags *pflag.FlagSet, port, timeout *string) {
	flags = pflag.NewFlagSet("shunt-init probe", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.Usage = func() {}
	port = flags.String("port", "", "`port` to connect to, tcp")
	timeout = flags.String("timeout", defaultProbeTimeout, "`time` after which a connection counts as refused")
	return flags, port, timeout
}

// probeMoment is how long an address is waited for before the next is asked
// too.
const probeMoment = 100 * time.Millisecond

// probe asks every address of the pod: kubelet asks the first, which is not
// known here, and an app may listen on it alone. Loopback is not asked,
// because kubelet could not reach it either. The addresses are asked in turn,
// so that the app sees one connection; but an IPv6 address that is under
// duplicate address detection swallows packets, and must not use up the time
// of those behind it.
func probe(ctx context.Context, port uint16) error {
	addrs, err := podAddresses()
	if err != nil {
		return fmt.Errorf("%w: %w", errProbe, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan error, len(addrs))
	unasked := addrs
	var errs []error
	for len(errs) < len(addrs) {
		var moment <-chan time.Time
		if len(unasked) > 0 {
			address := netip.AddrPortFrom(unasked[0], port)
			unasked = unasked[1:]
			go func() { results <- connect(ctx, address) }()
			moment = time.After(probeMoment)
		}
		select {
		case err := <-results:
			if err == nil {
				return nil
			}
			errs = append(errs, fmt.Errorf("%w: %w", errProbe, err))
		case <-moment:
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

// podAddresses are the global addresses of the pod's interfaces, at least one.
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
