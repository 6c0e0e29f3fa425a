//go:build linux

package agent

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
)

const (
	// setUpTime bounds one set-up, with its probes. The runtime waits for less, and
	// only for the rules; the gate waits for the rest.
	setUpTime = time.Minute
	// compareTime bounds one comparison.
	compareTime = 5 * time.Second
	// atOnce bounds the annotations whose set-ups run at once, in bytes: memory and
	// time grow with them. A short one counts as leastAtOnce.
	atOnce      = interception.MaxNodeRules
	leastAtOnce = 16 << 10
)

// Options are an agent's settings.
type Options struct {
	// Socket is where the runtime serves NRI.
	Socket string
	// Resync is how often the rules of every pod are compared with what they should
	// be; 0 for never.
	Resync time.Duration
	// Repair puts back what has changed; otherwise it is only told.
	Repair bool
	Log    *slog.Logger
	// Events is told what pods' owners have to know; nil for nobody.
	Events  *Events
	Metrics *Metrics
}

// Agent sets the pods of a node up.
type Agent struct {
	Options

	turns *semaphore.Weighted // atOnce in all

	mu   sync.Mutex
	pods map[string]pod      // with rules, by sandbox
	busy map[string]struct{} // sandboxes that are being set up
}

// New returns an agent that knows of no pod.
func New(opts Options) *Agent {
	a := &Agent{Options: opts, turns: semaphore.NewWeighted(atOnce), pods: map[string]pod{}, busy: map[string]struct{}{}}
	opts.Metrics.pods(a.count)
	return a
}

func (a *Agent) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.pods)
}

// When a pod is set up.
const (
	atStart = "start" // when its sandbox is made
	late    = "late"  // afterwards: the agent was not connected then
	repair  = "repair"
)

// lateDetail is what the receipt says of a pod that had to wait.
const lateDetail = "late: the agent was not connected to the runtime when the sandbox was made"

// begin sets a pod up whose sandbox has just been made, and returns once its rules
// are in place. Its error fails the sandbox. The runtime drops an agent that does
// not answer by the deadline of ctx, and all pods of the node with it. So begin
// answers sooner: the sandbox is made, the set-up goes on, and the pod's gate waits.
func (a *Agent) begin(ctx context.Context, p pod) error {
	applied := make(chan error, 1)
	start := time.Now()
	defer func() { a.Metrics.tookStart(time.Since(start)) }()
	a.start(p, atStart, func(err error) { applied <- err })
	if deadline, bounded := ctx.Deadline(); bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)*3/4)
		defer cancel()
	}
	select {
	case err := <-applied:
		return err
	case <-ctx.Done():
		a.Log.Warn("the rules take longer than the runtime waits; the pod's gate waits for them", "pod", p.String())
		return nil
	}
}

// start begins to set a pod up, unless that is being done already: then the pod's
// gate waits for its end. It does not wait itself, because a process of the pod may
// hold its namespace's lock. applied is called once, as soon as the rules are there
// or cannot be.
func (a *Agent) start(p pod, when string, applied func(error)) {
	if !a.claim(p) {
		applied(nil)
		return
	}
	go func() {
		defer a.release(p)
		a.setUp(p, when, applied)
	}()
}

// setUp sets one pod up, and tells everybody about it.
func (a *Agent) setUp(p pod, when string, applied func(error)) {
	log := a.Log.With("pod", p.String(), "when", when)
	rules, err := p.rules()
	if err != nil {
		applied(err)
		a.Metrics.setUp(when, resultRefused)
		a.Events.warn(p, eventRefused, err.Error())
		log.Warn("refused", "error", err)
		return
	}
	a.remember(p)
	detail := ""
	if when == late {
		detail = lateDetail
	}
	ctx, cancel := context.WithTimeout(context.Background(), setUpTime)
	defer cancel()
	start := time.Now()
	err = setUp(ctx, p, rules, detail, a.turn(p), applied)
	switch {
	case gone(p):
		a.forget(p)
	case err != nil:
		a.Metrics.setUp(when, resultFailed)
		a.Events.warn(p, eventFailed, "its network could not be set up for the proxy: "+err.Error())
		log.Error("failed", "error", err)
	default:
		a.Metrics.setUp(when, resultDone)
		log.Info("set up", "took", time.Since(start).Round(time.Millisecond).String())
		if when == late {
			a.Events.normal(p, eventLate,
				"its network is set up for the proxy only now: the node's agent was not connected to the runtime when the sandbox was made")
		}
	}
}

// synchronize takes over the pods that the runtime has: those that an agent has set
// up are watched, and those that wait are set up.
func (a *Agent) synchronize(pods []pod) {
	for _, p := range pods {
		a.takeOver(p)
	}
}

// takeOver sets a pod up unless that has been done.
func (a *Agent) takeOver(p pod) {
	if rules, err := p.rules(); err == nil {
		receipt, there, err := receiptOf(p)
		if err == nil && there && receipt.State == kernel.ReceiptDone && receipt.Digest == rules.Digest() {
			a.remember(p)
			return
		}
	}
	if gone(p) {
		return
	}
	when := late
	if a.knows(p) {
		when = repair
	}
	a.start(p, when, func(error) {})
}

// Resync compares the pods with their rules again and again, until ctx ends.
func (a *Agent) resync(ctx context.Context) {
	if a.Options.Resync == 0 {
		return
	}
	ticker := time.NewTicker(a.Options.Resync)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, p := range a.known() {
			if ctx.Err() != nil {
				return
			}
			a.compare(p)
		}
	}
}

// compare looks whether a pod still has its rules, or has got them at all.
func (a *Agent) compare(p pod) {
	rules, err := p.rules()
	if err != nil {
		return // it is not remembered
	}
	receipt, there, err := receiptOf(p)
	if gone(p) {
		a.forget(p)
		return
	}
	if err == nil && (!there || receipt.State != kernel.ReceiptDone) {
		a.start(p, repair, func(error) {}) // it failed, or the agent was stopped meanwhile
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), compareTime)
	defer cancel()
	var found kernel.Verdict
	if err == nil {
		found, err = drift(ctx, p, rules)
	}
	switch {
	case gone(p):
		a.forget(p)
	case err != nil:
		a.Metrics.compared(comparedFailed)
		a.Log.Error("comparing failed", "pod", p.String(), "error", err)
	case len(found.Findings) == 0:
		a.Metrics.compared(comparedSame)
	default:
		a.Metrics.compared(comparedChanged)
		a.Metrics.drifted(found.Causes)
		changes := clip(strings.Join(found.Findings, "; "))
		note := "its rules for the proxy were changed by somebody: " + changes
		a.Events.warn(p, eventChanged, note)
		a.Log.Warn("changed", "pod", p.String(), "reasons", found.Causes, "findings", changes, "repair", a.Repair)
		if a.Repair {
			a.start(p, repair, func(error) {})
		}
	}
}

// gone reports whether a pod's network namespace is no more, and the pod with it.
func gone(p pod) bool {
	_, err := os.Stat(p.netns)
	return p.netns != "" && errors.Is(err, fs.ErrNotExist)
}

// turn returns what a set-up waits for: that few enough others run.
func (a *Agent) turn(p pod) turn {
	size := int64(max(len(p.text), leastAtOnce))
	return func(ctx context.Context) (func(), error) {
		return func() { a.turns.Release(size) }, a.turns.Acquire(ctx, size)
	}
}

// claim reports whether nobody else sets the pod up; then release has to follow.
func (a *Agent) claim(p pod) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, busy := a.busy[p.sandbox]
	if !busy {
		a.busy[p.sandbox] = struct{}{}
	}
	return !busy
}

func (a *Agent) release(p pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.busy, p.sandbox)
}

func (a *Agent) remember(p pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pods[p.sandbox] = p
}

func (a *Agent) knows(p pod) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, known := a.pods[p.sandbox]
	return known
}

func (a *Agent) forget(p pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.pods, p.sandbox)
}

func (a *Agent) known() []pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []pod
	for _, p := range a.pods {
		all = append(all, p)
	}
	return all
}
