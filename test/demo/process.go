//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/test/netns"
)

// containerCommand is the word by which this program starts a container: it
// runs itself, takes on the container's identity, and becomes its program.
const containerCommand = "become-container"

// process is a running container.
type process struct {
	cmd     *netns.Cmd
	reading sync.WaitGroup

	mu     sync.Mutex
	stdout []string // lines
	stderr []string
}

// start runs a container in a namespace. It is killed when ctx ends, and with
// this process.
func (c container) start(ctx context.Context, ns *netns.NS) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	plan, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("describing the container: %w", err)
	}
	p := &process{cmd: ns.Command(ctx, self, containerCommand, fmt.Sprint(os.Getpid()), string(plan))}
	p.cmd.Dir, p.cmd.Env = "/", c.Env
	outClose, err := p.capture(c, &p.cmd.Stdout, &p.stdout)
	if err != nil {
		return nil, err
	}
	defer outClose()
	errClose, err := p.capture(c, &p.cmd.Stderr, &p.stderr)
	if err != nil {
		return nil, err
	}
	defer errClose()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.Program, err)
	}
	return p, nil
}

// capture gives the process a pipe, which belongs to the container's user as
// runc has it: Envoy opens /dev/stdout by its name, as whoever it runs as.
func (p *process) capture(c container, end *io.Writer, lines *[]string) (closeEnd func(), err error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe: %w", err)
	}
	if err := writer.Chown(int(c.UID), int(c.GID)); err != nil {
		return nil, errors.Join(fmt.Errorf("giving the pipe to uid %d: %w", c.UID, err), reader.Close(), writer.Close())
	}
	*end = writer
	p.reading.Go(func() {
		defer reader.Close()
		scanner := bufio.NewScanner(reader)
		scanner.Buffer(nil, 1<<20)
		for scanner.Scan() {
			p.mu.Lock()
			*lines = append(*lines, scanner.Text())
			p.mu.Unlock()
		}
	})
	return func() { _ = writer.Close() }, nil
}

// wait waits until the process has ended and all that it printed has been
// read. The error holds what it printed last on standard error.
func (p *process) wait() error {
	err := p.cmd.Wait()
	p.reading.Wait()
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.Join(p.lastErrors(), "; "))
	}
	return nil
}

// stop ends the process as kubelet does: SIGTERM, and SIGKILL when it has not
// ended after the grace period.
func (p *process) stop(grace time.Duration) {
	kill := time.AfterFunc(grace, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.wait()
}

// output returns the lines printed on standard output so far.
func (p *process) output() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.stdout...)
}

// lastErrors returns the last lines printed on standard error.
func (p *process) lastErrors() []string {
	const enough = 5
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.stderr[max(0, len(p.stderr)-enough):]...)
}

// becomeContainer turns this process into a container's program. It returns
// only with an error. Seccomp profiles are not applied.
func becomeContainer(args []string) error {
	runtime.LockOSThread() // what follows is of this thread, which then becomes the program
	var parent int
	var c container
	if len(args) != 2 {
		return fmt.Errorf("%d arguments; accepted: a process id and a container", len(args))
	}
	if _, err := fmt.Sscan(args[0], &parent); err != nil {
		return fmt.Errorf("reading the parent's process id %q: %w", args[0], err)
	}
	if err := json.Unmarshal([]byte(args[1]), &c); err != nil {
		return fmt.Errorf("reading the container: %w", err)
	}
	// Opened as root: the user need not be able to reach it by its path, as in
	// an image. It is found on this machine, which is the image.
	program, err := unix.Open(c.Program, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", c.Program, err)
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"making the root file system read-only", c.protectRoot},
		{"dropping capabilities", c.dropBounding},
		{"leaving the groups", func() error { return syscall.Setgroups(nil) }},
		{"setting the gid", func() error { return syscall.Setresgid(int(c.GID), int(c.GID), int(c.GID)) }},
		{"setting the uid", func() error { return syscall.Setresuid(int(c.UID), int(c.UID), int(c.UID)) }},
		{"setting capabilities", c.setCapabilities},
		{"giving up new privileges", c.forgoPrivileges},
		{"binding its life to the demo's", func() error { return dieWith(parent) }},
		{"running " + c.Program, func() error { return execFile(program, append([]string{c.Program}, c.Args...), c.Env) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

// protectRoot makes the root file system read-only, in a mount namespace that
// is the container's alone.
func (c container) protectRoot() error {
	if !c.ReadOnlyRoot {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
}

// capabilitySet has a bit for each capability.
func (c container) capabilitySet() (set uint64) {
	for _, number := range c.Capabilities {
		set |= 1 << number
	}
	return set
}

// dropBounding leaves in the bounding set what the container may have.
func (c container) dropBounding() error {
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
func (c container) setCapabilities() error {
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

func (c container) forgoPrivileges() error {
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
		return errors.New("the demo has ended")
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
