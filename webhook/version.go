package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/discovery"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/config"
)

// Between two questions that got no answer.
const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = 10 * time.Second
)

// errVersionUnknown is that the API server has not been asked yet, or has not
// answered.
var errVersionUnknown = errors.New("the API server has not said which version it is, which decides what a proxy's container looks like")

// current is the Injector that a Handler goes by: that of its configuration, as
// it holds for the API server.
type current struct {
	injector atomic.Pointer[inject.Injector]

	mutex   sync.Mutex // of what the Injector is made of
	cfg     config.Config
	waits   bool  // for the API server's version; there is no Injector until then
	natives *bool // whether the API server knows native sidecars; nil where nobody asks
}

func (c *current) configure(cfg config.Config) {
	c.change(func() { c.cfg = cfg })
}

// await takes the Injector away until the API server's version is known.
func (c *current) await() {
	c.change(func() { c.waits = true })
}

// knows is told whether the API server knows native sidecars.
func (c *current) knows(natives bool) {
	c.change(func() { c.waits, c.natives = false, &natives })
}

func (c *current) change(what func()) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	what()
	cfg := c.cfg
	if c.natives != nil {
		cfg = cfg.ForAPIServer(*c.natives)
	}
	if c.waits {
		c.injector.Store(nil)
		return
	}
	c.injector.Store(inject.NewInjector(cfg))
}

// check is for a readiness probe.
func (c *current) check(*http.Request) error {
	if c.injector.Load() == nil {
		return errVersionUnknown
	}
	return nil
}

// asker asks the API server for its version, once, as a manager's Runnable.
// An API server that is replaced by a newer one is asked when the webhook starts
// anew.
type asker struct {
	api  discovery.ServerVersionInterfaceWithContext
	tell func(natives bool)
	log  logr.Logger
	// retry is how long the first question that got no answer is not repeated.
	retry time.Duration
}

// NeedLeaderElection is false: every replica has an Injector.
func (a *asker) NeedLeaderElection() bool { return false }

// Start asks until there is an answer or ctx ends.
func (a *asker) Start(ctx context.Context) error {
	for retry := a.retry; ; retry = min(2*retry, lastRetry) {
		natives, err := a.ask(ctx)
		if err == nil {
			a.tell(natives)
			return nil
		}
		a.log.Error(err, "the API server's version is not known; no pod is created where the proxy is asked for", "retry", retry.String())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retry):
		}
	}
}

func (a *asker) ask(ctx context.Context) (natives bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	info, err := a.api.ServerVersionWithContext(ctx)
	if err != nil {
		return false, fmt.Errorf("ask the API server for its version: %w", err)
	}
	if natives, err = config.KnowsNativeSidecars(info.GitVersion); err != nil {
		return false, err
	}
	a.log.Info("the API server's version is known", "version", info.GitVersion, "nativeSidecars", natives)
	return natives, nil
}
