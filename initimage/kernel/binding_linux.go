package kernel

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// MayBindToLoopback reports whether a process without a capability may bind a
// socket to lo (SO_BINDTODEVICE), as Linux allows since 5.7. It tries, because
// a kernel's number does not tell what its distribution has put into it.
func MayBindToLoopback() bool {
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with its goroutine, and gives nobody
		// else the capabilities that it lacks then.
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
