package kernel

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// MayBindToLoopback reports whether a process without capabilities may bind a
// socket to lo (SO_BINDTODEVICE), as Linux allows since 5.7. It tries, because
// distributions backport it and the version number does not tell.
func MayBindToLoopback() bool {
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with its goroutine, so that no other
		// goroutine runs without the capabilities.
		runtime.LockOSThread()
		done <- bindUnprivileged()
	}()
	return <-done == nil
}

// bindUnprivileged gives up the capabilities of the calling thread, and binds a
// socket to lo.
func bindUnprivileged() error {
	var none [2]unix.CapUserData
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
		return fmt.Errorf("giving up capabilities: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	return os.NewSyscallError("setsockopt SO_BINDTODEVICE", unix.BindToDevice(fd, "lo"))
}
