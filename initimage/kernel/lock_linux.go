package kernel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// lockName is the address of an abstract unix socket. Such a name belongs to one
// network namespace, needs no file system, and is released by the kernel however
// its process ends (unix(7)).
const lockName = "@shunt-init"

const (
	// lockRetry is the pause before a run tries for the lock again.
	lockRetry = 10 * time.Millisecond
	// lockPatience is how long a run keeps trying: longer than any run takes.
	lockPatience = time.Minute
)

// lock keeps two runs from changing one namespace at the same time.
type lock struct{ fd int }

// acquireLock waits for another run to end, for at most the patience. Any process
// of the namespace, whatever its user, can hold the name for ever: so the wait has
// an end, and the error says what to look for.
func acquireLock(ctx context.Context, patience time.Duration) (*lock, error) {
	// The commands that a run starts inherit the socket. A command that outlives a
	// killed run must end before the next run may write.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		return nil, fmt.Errorf("making the lock: %w", err)
	}
	for deadline := time.Now().Add(patience); ; {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: lockName})
		if err == nil {
			return &lock{fd}, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			break
		}
		if time.Now().After(deadline) {
			_ = unix.Close(fd)
			return nil, fmt.Errorf("the lock of this network namespace, the unix socket %s, has been held for %s by another shunt-init, "+
				"or by another process of the pod; find it with ss --unix --all --processes (from the host, with nsenter --net); "+
				"end it, or wait until it ends", lockName, patience)
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
