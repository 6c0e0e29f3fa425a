//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"

	"github.com/shunt-dev/shunt/initimage/kernel"
)

const (
	dumpCommand = "dump"
	dumpUsage   = `Usage: shunt-init dump [--connect ADDRESS:PORT]

Print what decides which way packets go in the network namespace that it runs in: the rules of all parties with their counters,
policy rules, routes and addresses. shunt trace --dump reads it, and shunt trace --pod runs it in a pod. Nothing is changed.

  --connect ADDRESS:PORT   make one tcp connection to there, send nothing, and print everything before and after it

It needs the capability NET_ADMIN, and NET_RAW where there are tables of iptables-legacy.
`
)

// runDump prints the namespace.
func runDump(ctx context.Context, args []string, stdout io.Writer) error {
	switch {
	case len(args) == 1 && (args[0] == "-h" || args[0] == "--help"):
		_, err := fmt.Fprint(stdout, dumpUsage)
		return err
	case len(args) == 2 && args[0] == "--connect":
		to, err := netip.ParseAddrPort(args[1])
		if err != nil || to.Port() == 0 {
			return fmt.Errorf("dump --connect: invalid value %q; accepted: ADDRESS:PORT, [ADDRESS]:PORT", args[1])
		}
		return kernel.DumpAround(ctx, stdout, to)
	case len(args) > 0:
		return fmt.Errorf("dump: unexpected argument %q; accepted: --connect ADDRESS:PORT", args[0])
	}
	return kernel.Dump(ctx, stdout)
}
