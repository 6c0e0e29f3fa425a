package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
)

// Cmd is an exec.Cmd whose process runs in a namespace. Of exec.Cmd's methods,
// those here start it there.
type Cmd struct {
	*exec.Cmd
	ns *NS
}

// Command wraps exec.CommandContext for a program in the namespace. The program
// is killed when ctx ends, when the namespace is closed and when this process
// ends, by kill -9 too. A program that changes its user loses the last of the
// three, see Limit.
func (ns *NS) Command(ctx context.Context, name string, args ...string) *Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return &Cmd{Cmd: cmd, ns: ns}
}

// Start starts the program and does not wait for it.
func (c *Cmd) Start() error {
	done := make(chan error)
	select {
	case c.ns.keeper <- func() { done <- c.Cmd.Start() }:
		return <-done
	case <-c.ns.closed:
		return fmt.Errorf("starting %s: network namespace %s is closed", c.Path, c.ns.name)
	}
}

// Run starts the program and waits for its end.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// CombinedOutput runs the program and returns its standard output and error.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil {
		return nil, errors.New("netns: standard output or error is already set")
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}
