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

const (
	// lockRetry is how long a run waits before it tries for the lock again.
	lockRetry = 10 * time.Millisecond
	// lockPatience is how long it does so: longer than any run takes.
	lockPatience = time.Minute
)

// lock keeps two runs from changing one namespace at the same time.
type lock struct{ fd int }

// acquireLock waits so long for another run to end. Whatever its user, a process
// of the namespace can hold the name for ever, which takes nobody's word.
func acquireLock(ctx context.Context, patience time.Duration) (*lock, error) {
	// The commands that a run starts inherit the socket: one that outlives a
	// run that was killed must end before the next may write.
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
				"or by a process of the pod that is none; ss --unix --all --processes tells which (from the host, behind nsenter --net); "+
				"end it, or wait for its end", lockName, patience)
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
