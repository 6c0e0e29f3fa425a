package source

import (
	"context"
	"net/netip"
	"runtime"
	"strings"

	"github.com/shunt-dev/shunt/initimage/kernel"
)

// dumpOf reads a network namespace, before and after a connection if one is asked
// for. The thread that enters it ends with its
// goroutine, because it stays locked.
func dumpOf(ctx context.Context, path string, live netip.AddrPort) (string, error) {
	var text strings.Builder
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := kernel.Enter(path)
		switch {
		case err != nil:
		case live.IsValid():
			err = kernel.DumpAround(ctx, &text, live)
		default:
			err = kernel.Dump(ctx, &text)
		}
		done <- err
	}()
	err := <-done
	return text.String(), err
}
