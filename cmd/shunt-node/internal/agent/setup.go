//go:build linux

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
)

// inNamespace calls do in a network namespace, on a thread of its own that ends with
// it, and returns its error.
func inNamespace(path string, do func() error) error {
	result := make(chan error, 1)
	go onOwnThread(path, do, result)
	return <-result
}

// onOwnThread never takes the main thread: that one does not end with its goroutine,
// and /proc/self shows its namespace as the process's.
func onOwnThread(path string, do func() error, result chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		defer runtime.UnlockOSThread()
		ended := make(chan struct{})
		// This thread is locked, so that another one runs the goroutine.
		go func() { defer close(ended); onOwnThread(path, do, result) }()
		<-ended
		return
	}
	// Not unlocked: Go ends a thread whose goroutine ends locked.
	err := kernel.Enter(path)
	if err == nil {
		err = do()
	}
	result <- err
}

// receiptOf returns the receipt in a pod's network namespace.
func receiptOf(p pod) (receipt kernel.Receipt, ok bool, err error) {
	err = inNamespace(p.netns, func() (err error) {
		receipt, ok, err = kernel.ReadReceipt()
		return err
	})
	return receipt, ok, err
}

// turn waits until a set-up may begin, and returns what ends it.
type turn func(context.Context) (end func(), err error)

// setUp brings a pod's network namespace to its rules, and proves them with probes.
// It calls applied as soon as the rules are there and have been read back, or could
// not be written: a sandbox need not wait for the probes, because the pod's gate does.
// The receipt tells the gate how far it got. turn is taken once the namespace's lock
// is had, which a process of the pod may hold.
func setUp(ctx context.Context, p pod, rules interception.NodeRules, detail string, turn turn, applied func(error)) error {
	told := false
	err := inNamespace(p.netns, func() error {
		receipt := kernel.Receipt{State: kernel.ReceiptBegun, Digest: rules.Digest()}
		if err := kernel.LeaveReceipt(receipt); err != nil {
			return err
		}
		unproved, err := install(ctx, rules, turn, func() { told = true; applied(nil) })
		receipt.State, receipt.Detail = kernel.ReceiptDone, detail
		if err != nil {
			receipt.State, receipt.Detail = kernel.ReceiptFailed, err.Error()
		} else if len(unproved) > 0 {
			receipt.Detail = strings.TrimPrefix(detail+", but "+strings.Join(unproved, ", and "), ", ")
		}
		return errors.Join(err, kernel.LeaveReceipt(receipt))
	})
	if !told {
		applied(err)
	}
	return err
}

// install applies the rules in the network namespace of this thread, calls applied,
// and sends the probes, unless an earlier run has sent them through the very same
// rules.
func install(ctx context.Context, rules interception.NodeRules, turn turn, applied func()) (unproved []string, err error) {
	host, err := kernel.Open(ctx, rules.Options(), kernel.SysctlFolder(writableSysctls()))
	if err != nil {
		return nil, err
	}
	defer host.Close()
	end, err := turn(ctx)
	if err != nil {
		return nil, fmt.Errorf("waiting for the set-ups of other pods: %w", err)
	}
	defer end()
	want := host.Wanted(rules.Spec)
	if err := errors.Join(host.Require(rules.Spec, want), host.RequireSettings(rules.Spec)); err != nil {
		return nil, err
	}
	result, err := kernel.Apply(ctx, host, want, true)
	if err != nil {
		return nil, err
	}
	verdict, err := kernel.Verify(ctx, host, want, result.Holds)
	if err := verifyError(verdict.Findings, err); err != nil {
		return nil, err
	}
	applied()
	proved, err := host.Proved(ctx, result.Holds)
	if err != nil || proved {
		return nil, err
	}
	return host.Prove(ctx, rules.Spec, want, result.Holds, verifyError)
}

// writableSysctls returns where this thread can set sysctls of its network namespace.
// A container's own folder is read-only, and so config/node mounts the node's. Both
// show those of the thread's namespace.
func writableSysctls() string {
	const mounted, own = "/host/proc/sys/net", "/proc/sys/net"
	if _, err := os.Stat(mounted); err != nil {
		return own
	}
	return mounted
}

// drift returns what is no longer as it was set up in a pod's network namespace. It
// changes nothing there.
func drift(ctx context.Context, p pod, rules interception.NodeRules) (verdict kernel.Verdict, err error) {
	err = inNamespace(p.netns, func() error {
		host, err := kernel.OpenToRead(ctx, rules.Options(), kernel.SysctlFolder(writableSysctls()))
		if err != nil {
			return err
		}
		defer host.Close()
		holds, err := kernel.Read(ctx, host, host.Families())
		if err != nil {
			return err
		}
		verdict, err = kernel.Verify(ctx, host, host.Wanted(rules.Spec), holds)
		if setting := host.RequireSettings(rules.Spec); setting != nil {
			verdict.Findings = append(verdict.Findings, setting.Error())
			verdict.Causes = append(verdict.Causes, kernel.CauseSettings)
		}
		return err
	})
	return verdict, err
}

func verifyError(findings []string, err error) error {
	if err != nil {
		return fmt.Errorf("%w: %w", kernel.ErrVerify, err)
	}
	if len(findings) > 0 {
		return fmt.Errorf("%w: %s", kernel.ErrVerify, strings.Join(findings, "; "))
	}
	return nil
}
