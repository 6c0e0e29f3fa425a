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

// becomeCommand is the word by which a program starts a container: it runs
// itself, takes on the container's identity, and becomes its program.
const becomeCommand = "become-container"

// Main becomes a container where Start has run this program to that end, and
// returns otherwise.
func Main() {
	if len(os.Args) > 1 && os.Args[1] == becomeCommand {
		fmt.Fprintln(os.Stderr, "starting a container:", become(os.Args[2:]))
		os.Exit(1)
	}
}

// planFile is the descriptor that a container is described on.
const planFile = 3

// become turns this process into a container's program. It returns only with
// an error.
func become(args []string) error {
	runtime.LockOSThread() // what follows is of this thread, which then becomes the program
	var parent int
	if len(args) != 1 {
		return fmt.Errorf("%d arguments; accepted: a process id", len(args))
	}
	if _, err := fmt.Sscan(args[0], &parent); err != nil {
		return fmt.Errorf("reading the parent's process id %q: %w", args[0], err)
	}
	var c Container
	plan := os.NewFile(planFile, "plan")
	if err := json.NewDecoder(plan).Decode(&c); err != nil {
		return fmt.Errorf("reading the container: %w", err)
	}
	_ = plan.Close()
	// Opened as root: the user need not be able to reach it by its path, as in
	// an image. It is found on this machine, which is the image. It stays open:
	// the interpreter of a script reads it.
	program, err := unix.Open(c.Program, unix.O_PATH, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", c.Program, err)
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"making the root file system", c.makeRoot},
		{"dropping capabilities", c.dropBounding},
		{"leaving the groups", func() error { return syscall.Setgroups(nil) }},
		{"setting the gid", func() error { return syscall.Setresgid(int(c.GID), int(c.GID), int(c.GID)) }},
		{"setting the uid", func() error { return syscall.Setresuid(int(c.UID), int(c.UID), int(c.UID)) }},
		{"setting capabilities", c.setCapabilities},
		{"giving up new privileges", c.forgoPrivileges},
		{"binding its life to its starter's", func() error { return dieWith(parent) }},
		{"running " + c.Program, func() error { return execFile(program, append([]string{c.Program}, c.Args...), c.Env) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

// capabilitySet has a bit for each capability.
func (c Container) capabilitySet() (set uint64) {
	for _, number := range c.Capabilities {
		set |= 1 << number
	}
	return set
}

// dropBounding leaves in the bounding set what the container may have.
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

// dieWith has the kernel kill this process when its parent ends. It was so
// when it started, but a change of user ends it.
func dieWith(parent int) error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	if os.Getppid() != parent {
		return errors.New("it has ended")
	}
	return nil
}

// execFile becomes an opened program.
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
