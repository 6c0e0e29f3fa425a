//go:build linux

package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// becomeCommand is the argument with which a program runs itself to start a
// container: it takes on the container's identity and becomes the container's
// program.
const becomeCommand = "become-container"

// Main becomes a container if Start has run this program for that, and returns
// otherwise.
func Main() {
	if len(os.Args) > 1 && os.Args[1] == becomeCommand {
		fmt.Fprintln(os.Stderr, "starting a container:", become(os.Args[2:]))
		os.Exit(1)
	}
}

// planFile is the descriptor that the container's description is read from.
const planFile = 3

// become turns this process into a container's program. It returns only with an
// error.
func become(args []string) error {
	runtime.LockOSThread() // what follows is for this thread, which becomes the program
	var parent int
	if len(args) != 1 {
		return fmt.Errorf("%d arguments; accepted: a process id", len(args))
	}
	if _, err := fmt.Sscan(args[0], &parent); err != nil {
		return fmt.Errorf("reading the parent's process id %q: %w", args[0], err)
	}
	var container Container
	plan := os.NewFile(planFile, "plan")
	if err := json.NewDecoder(plan).Decode(&container); err != nil {
		return fmt.Errorf("reading the container: %w", err)
	}
	_ = plan.Close()
	// Opened as root: as in an image, the user need not be able to reach the
	// program by its path. The program is found on this machine, which stands in
	// for the image. The descriptor stays open: the interpreter of a script reads
	// it.
	program, err := unix.Open(container.Program, unix.O_PATH, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", container.Program, err)
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"making the root file system", container.makeRoot},
		{"dropping capabilities", container.dropBounding},
		{"leaving the groups", func() error { return syscall.Setgroups(nil) }},
		{"setting the gid", func() error { return syscall.Setresgid(int(container.GID), int(container.GID), int(container.GID)) }},
		{"setting the uid", func() error { return syscall.Setresuid(int(container.UID), int(container.UID), int(container.UID)) }},
		{"setting capabilities", container.setCapabilities},
		{"giving up new privileges", container.forgoPrivileges},
		{"binding its life to its starter's", func() error { return dieWith(parent) }},
		{"running " + container.Program, func() error {
			return execFile(program, append([]string{container.Program}, container.Args...), container.Env)
		}},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

// capabilitySet returns a bit set of capabilities.
func (c Container) capabilitySet() (set uint64) {
	for _, number := range c.Capabilities {
		set |= 1 << number
	}
	return set
}

// dropBounding removes all capabilities from the bounding set that the container
// does not have.
func (c Container) dropBounding() error {
	for number := range 64 {
		if c.capabilitySet()&(1<<number) != 0 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(number), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // the kernel knows no more of them
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// setCapabilities gives the capabilities to root. Any other user has none of
// them, since container runtimes do not make them ambient.
func (c Container) setCapabilities() error {
	var set uint64
	if c.UID == 0 {
		set = c.capabilitySet()
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(set), Permitted: uint32(set)},
		{Effective: uint32(set >> 32), Permitted: uint32(set >> 32)},
	}
	return unix.Capset(&header, &data[0])
}

func (c Container) forgoPrivileges() error {
	if !c.NoNewPrivs {
		return nil
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

// dieWith makes the kernel kill this process when its parent ends. That was set
// when it started, but a change of user clears it.
func dieWith(parent int) error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	if os.Getppid() != parent {
		return errors.New("it has ended")
	}
	return nil
}

// execFile replaces this process by an opened program.
func execFile(fd int, args, env []string) error {
	argv, err := syscall.SlicePtrFromStrings(args)
	if err != nil {
		return err
	}
	envv, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return err
	}
	empty, err := syscall.BytePtrFromString("")
	if err != nil {
		return err
	}
	_, _, errno := unix.Syscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(empty)),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])), unix.AT_EMPTY_PATH, 0)
	return errno
}
