package kernel

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Enter moves the calling thread into the network namespace at a path, such as
// /proc/1234/ns/net. The thread must be locked (runtime.LockOSThread), and must not
// be used for anything else afterwards. Its errors are ErrPreflight.
func Enter(path string) error {
	// A path that is no namespace must not hold the thread: opening a FIFO waits.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%w: opening the network namespace %s: %w", ErrPreflight, path, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("%w: entering the network namespace %s: %w", ErrPreflight, path, err)
	}
	return nil
}
