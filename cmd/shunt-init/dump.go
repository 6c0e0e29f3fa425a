//go:build linux

package main

import (
	"context"
	"fmt"
	"io"

	"github.com/shunt-dev/shunt/initimage/kernel"
)

const (
	dumpCommand = "dump"
	dumpUsage   = `Usage: shunt-init dump

Print what decides which way packets go in the network namespace that it runs in: the rules of all parties with their counters,
policy rules, routes and addresses. shunt trace --dump reads it, and shunt trace --pod runs it in a pod. Nothing is changed.

It needs the capability NET_ADMIN, and NET_RAW where there are tables of iptables-legacy.
`
)

// runDump prints the namespace.
func runDump(ctx context.Context, args []string, stdout io.Writer) error {
	switch {
	case len(args) == 1 && (args[0] == "-h" || args[0] == "--help"):
		_, err := fmt.Fprint(stdout, dumpUsage)
		return err
	case len(args) > 0:
		return fmt.Errorf("dump: unexpected argument %q; accepted: none", args[0])
	}
	return kernel.Dump(ctx, stdout)
}
