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

// Pauses between two requests for the version.
const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = 10 * time.Second
)

// errVersionUnknown means that the API server has not reported its version yet.
var errVersionUnknown = errors.New("the API server has not reported its version yet, which decides the kind of the proxy's container")

// current is a Handler's Injector: that of its configuration, adapted to the API
// server.
type current struct {
	injector atomic.Pointer[inject.Injector]

	mutex          sync.Mutex // guards what the Injector is made of
	cfg            config.Config
	since          time.Time // of cfg
	rejected       string    // what is wrong with the file now; empty if cfg is the file's
	version        string    // of the program
	waiting        bool      // for the API server's version; there is no Injector until then
	nativeSidecars *bool     // whether the API server knows native sidecars; nil if nobody asks
}

// configure replaces the configuration, and returns the one before.
func (c *current) configure(cfg config.Config) (before config.Config) {
	c.change(func() { before, c.cfg, c.since, c.rejected = c.cfg, cfg, time.Now(), "" })
	return before
}

// reject keeps the configuration, and why a later one is not used.
func (c *current) reject(err error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.rejected = clip(err.Error(), maxMessage)
}

// state is what pods are injected with.
type state struct {
	cfg            config.Config
	since          time.Time
	rejected       string
	nativeSidecars bool
}

func (c *current) state() (state, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.nativeSidecars == nil {
		return state{}, errVersionUnknown
	}
	return state{c.cfg, c.since, c.rejected, *c.nativeSidecars}, nil
}

// setVersion sets the program's version, which pods' statuses record.
func (c *current) setVersion(version string) {
	c.change(func() { c.version = version })
}

// waitForVersion removes the Injector until the API server's version is known.
func (c *current) waitForVersion() {
	c.change(func() { c.waiting = true })
}

// setNativeSidecars sets whether the API server knows native sidecars.
func (c *current) setNativeSidecars(natives bool) {
	c.change(func() { c.waiting, c.nativeSidecars = false, &natives })
}

func (c *current) change(edit func()) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	edit()
	cfg := c.cfg
	if c.nativeSidecars != nil {
		cfg = cfg.ForAPIServer(*c.nativeSidecars)
	}
	if c.waiting {
		c.injector.Store(nil)
		return
	}
	c.injector.Store(inject.NewInjector(cfg).OfVersion(c.version))
}

// check implements a readiness probe.
func (c *current) check(*http.Request) error {
	if c.injector.Load() == nil {
		return errVersionUnknown
	}
	return nil
}

// versionReader reads the API server's version once. It is a manager's Runnable.
// After an upgrade of the API server, the version is read when the webhook
// restarts.
type versionReader struct {
	api    discovery.ServerVersionInterfaceWithContext
	report func(natives bool)
	log    logr.Logger
	// retry is the pause after the first failure.
	retry time.Duration
}

// NeedLeaderElection returns false: every replica has an Injector.
func (a *versionReader) NeedLeaderElection() bool { return false }

// Start asks until there is an answer or ctx ends.
func (a *versionReader) Start(ctx context.Context) error {
	for retry := a.retry; ; retry = min(2*retry, lastRetry) {
		natives, err := a.read(ctx)
		if err == nil {
			a.report(natives)
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

func (a *versionReader) read(ctx context.Context) (natives bool, err error) {
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
