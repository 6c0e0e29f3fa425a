//go:build linux

package container

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shunt-dev/shunt/test/netns"
)

// Process is a running container.
type Process struct {
	cmd     *netns.Cmd
	reading sync.WaitGroup

	mu     sync.Mutex
	stdout []string // lines
	stderr []string
}

// Start runs a container in a namespace. It is killed when ctx ends, and with this
// process.
func (c Container) Start(ctx context.Context, ns *netns.NS) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	plan, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("describing the container: %w", err)
	}
	// Not as an argument: the kernel does not take one that long.
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe: %w", err)
	}
	defer read.Close()
	defer write.Close()
	p := &Process{cmd: ns.Command(ctx, self, becomeCommand, fmt.Sprint(os.Getpid()))}
	p.cmd.Dir, p.cmd.Env, p.cmd.ExtraFiles = "/", c.Env, []*os.File{read}
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
	_ = read.Close()                                                               // or writing to an ended process would block
	if _, err := write.Write(plan); err != nil && !errors.Is(err, syscall.EPIPE) { // Wait returns why it has ended
		return nil, fmt.Errorf("describing the container to itself: %w", err)
	}
	return p, nil
}

// capture gives the process a pipe that belongs to the container's user, as runc
// does: Envoy opens /dev/stdout by its name, as its own user.
func (p *Process) capture(c Container, end *io.Writer, lines *[]string) (closeEnd func(), err error) {
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

// Wait waits until the process has ended and all its output has been read. The
// error holds the end of its standard error.
func (p *Process) Wait() error {
	err := p.cmd.Wait()
	p.reading.Wait()
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.Join(p.LastErrors(), "; "))
	}
	return nil
}

// Signal sends the process a signal.
func (p *Process) Signal(signal os.Signal) error { return p.cmd.Process.Signal(signal) }

// Stop ends the process as kubelet does: by a signal, which is the image's and
// usually SIGTERM, and by SIGKILL if it has not ended after the grace period.
func (p *Process) Stop(signal os.Signal, grace time.Duration) error {
	kill := time.AfterFunc(grace, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	_ = p.Signal(signal)
	return p.Wait()
}

// Output returns the lines printed on standard output so far.
func (p *Process) Output() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.stdout)
}

// Errors returns the lines printed on standard error so far.
func (p *Process) Errors() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.stderr)
}

// LastErrors returns the last of the lines printed on standard error.
func (p *Process) LastErrors() []string {
	const enough = 5
	all := p.Errors()
	return all[max(0, len(all)-enough):]
}
