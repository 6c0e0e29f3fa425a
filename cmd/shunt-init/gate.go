//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

const (
	// gatePatience is how long a pod waits for the node's agent before its container
	// ends with what is missing. kubelet then starts it again, unless the pod's
	// restartPolicy is Never.
	gatePatience = 2 * time.Minute
	// gateSilence is how long it waits before it says so.
	gateSilence = 3 * time.Second
	gatePause   = 100 * time.Millisecond
)

// runGate leaves the proxy its files, waits until the node's agent has set this
// network namespace up by the same arguments, and proves with connections of its own
// that they are intercepted. It needs no privilege, and changes nothing.
func runGate(ctx context.Context, args []string, stdout io.Writer) error {
	task, err := parseTask(args)
	if errors.Is(err, pflag.ErrHelp) {
		_, err := fmt.Fprint(stdout, "Usage: shunt-init gate [flags]\n\nThe flags are those of shunt-init.\n")
		return err
	}
	if err != nil {
		return err
	}
	debug.SetGCPercent(gcPercent) // main has disabled it, and this may take long
	return gate{task: task, stdout: stdout, patience: gatePatience}.run(ctx)
}

// gate holds a pod back until its connections are intercepted.
type gate struct {
	task     task
	stdout   io.Writer
	patience time.Duration
}

func (g gate) run(ctx context.Context) error {
	if err := leaveFiles(g.task); err != nil {
		return err
	}
	start := time.Now()
	receipt, err := g.await(ctx)
	if err != nil {
		return err
	}
	families, err := kernel.FamiliesOf(g.task.opts.IPv6)
	if err != nil {
		return fmt.Errorf("%w: %w", kernel.ErrPreflight, err)
	}
	probed, err := kernel.Witness(ctx, g.task.spec, families)
	if err := verifyError(probed.Findings, err); err != nil {
		return fmt.Errorf("%w\nthe node's agent has set this pod up, but its connections are not intercepted: "+
			"the rules are wrong, or somebody has changed them since", err)
	}
	var names []string
	for _, family := range families {
		names = append(names, family.String())
	}
	outcome := "set up by the node's agent"
	if receipt.Detail != "" {
		outcome += " (" + receipt.Detail + ")"
	}
	if waited := time.Since(start); waited > gateSilence {
		outcome += ", after " + waited.Round(time.Second).String()
	}
	outcome += ", verified"
	if len(probed.Unproved) > 0 {
		outcome += ", but " + strings.Join(probed.Unproved, ", and ")
	}
	_, err = fmt.Fprintf(g.stdout, "shunt-init: %s, %s: %s; not intercepted: %s\n",
		g.task.spec.System, strings.Join(names, " and "), outcome, ruleset.Exceptions(g.task.spec))
	return err
}

// await waits for the receipt of the node's agent. Its error says what has happened
// instead.
//
//	receipt                  | means
//	none                     | no agent has seen this pod
//	of other arguments       | somebody has changed the annotation
//	begun                    | the agent has not finished
//	failed                   | the agent says why
//	done                     | the rules are there
func (g gate) await(ctx context.Context) (kernel.Receipt, error) {
	rules := interception.NodeRules{Spec: g.task.spec, IPv6: g.task.opts.IPv6}
	start, said := time.Now(), false
	for {
		receipt, there, err := kernel.ReadReceipt()
		if err != nil {
			return kernel.Receipt{}, err
		}
		var missing string
		switch {
		case !there:
			missing = "no agent has set this pod's network up: there is no shunt-node on this node, " +
				"or it was not connected to the container runtime when the pod's sandbox was made"
		case receipt.Digest != rules.Digest():
			return receipt, fmt.Errorf("%w: the node's agent was given other arguments than this container: "+
				"somebody has changed the pod's annotation after it was injected; create the pod again", kernel.ErrVerify)
		case receipt.State == kernel.ReceiptDone:
			return receipt, nil
		case receipt.State == kernel.ReceiptFailed:
			return receipt, fmt.Errorf("%w: the node's agent could not set this pod's network up: %s", kernel.ErrVerify, receipt.Detail)
		default:
			missing = "the node's agent has begun to set this pod's network up and has not finished: " +
				"it is stuck, or was stopped, or lost the container runtime"
		}
		waited := time.Since(start)
		if waited >= g.patience {
			return receipt, fmt.Errorf("%w: %s; waited %s; a connected agent sets up the pods that wait, and the next try passes",
				kernel.ErrVerify, missing, waited.Round(time.Second))
		}
		if !said && waited >= gateSilence {
			said = true
			if _, err := fmt.Fprintf(g.stdout, "shunt-init: waiting: %s\n", missing); err != nil {
				return receipt, err
			}
		}
		select {
		case <-ctx.Done():
			return receipt, fmt.Errorf("%w: %s: %w", kernel.ErrVerify, missing, ctx.Err())
		case <-time.After(gatePause):
		}
	}
}
