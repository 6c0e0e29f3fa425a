//go:build !linux

package source

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
)

func dumpOf(context.Context, string, netip.AddrPort) (string, error) {
	return "", fmt.Errorf("%s has no network namespaces; accepted: on the Linux node, or --pod, or --dump with what was printed there",
		runtime.GOOS)
}
