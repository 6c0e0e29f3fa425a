package source

import (
	"context"
	"runtime"
	"strings"

	"github.com/shunt-dev/shunt/initimage/kernel"
)

// dumpOf reads a network namespace. The thread that enters it ends with its
// goroutine, because it stays locked.
func dumpOf(ctx context.Context, path string) (string, error) {
	var text strings.Builder
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := kernel.Enter(path)
		if err == nil {
			err = kernel.Dump(ctx, &text)
		}
		done <- err
	}()
	err := <-done
	return text.String(), err
}
