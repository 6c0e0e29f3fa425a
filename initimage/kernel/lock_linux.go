package kernel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// lockName is an abstract unix socket address. Such a name belongs to one
// network namespace, needs no file system, and is given back by the kernel
// when its process ends, however it ends: just what a lock on a namespace
// should be (unix(7)).
const lockName = "@shunt-init"

// lockRetry is how long a run waits before it tries for the lock again.
const lockRetry = 10 * time.Millisecond

// lock keeps two runs from changing one namespace at the same time.
type lock struct{ fd int }

func acquireLock(ctx context.Context) (*lock, error) {
	// The commands that a run starts inherit the socket: one that outlives a
	// run that was killed must end before the next may write.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		return nil, fmt.Errorf("making the lock: %w", err)
	}
	for {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: lockName})
		if err == nil {
			return &lock{fd}, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			break
		}
		select {
		case <-ctx.Done():
			_ = unix.Close(fd)
			return nil, fmt.Errorf("waiting for another shunt-init in this namespace: %w", ctx.Err())
		case <-time.After(lockRetry):
		}
	}
	_ = unix.Close(fd)
	return nil, fmt.Errorf("taking the lock: %w", err)
}

func (l *lock) release() { _ = unix.Close(l.fd) }
