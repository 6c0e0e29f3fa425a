package webhook

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/inject/config"
)

const (
	// pollInterval is how often the file is read without a sign of a change:
	// for file systems that give none, and for what lies behind a symlink.
	pollInterval = 10 * time.Second
	// settleTime is given to whoever writes the file in several steps.
	settleTime = 100 * time.Millisecond
)

// ConfigFile is a configuration that is read again when it changes.
type ConfigFile struct {
	// Path of the file; empty where the configuration is none.
	Path string
	// Parse makes a configuration of the file's text: what a start with this
	// text would make of it.
	Parse func(text []byte) (config.Config, error)
}

// reloader has a Handler go by a file, as a manager's Runnable.
type reloader struct {
	file    ConfigFile
	handler *Handler
	metrics *Metrics
	log     logr.Logger
	events  *announcer
	self    *corev1.ObjectReference
	poll    time.Duration

	seen    string // the text, or the error in its place
	started bool   // seen is something
}

func newReloader(opts Options, handler *Handler) *reloader {
	return &reloader{
		file: opts.Config, handler: handler, metrics: handler.metrics, log: opts.Log, events: handler.events, self: opts.Self,
		poll: pollInterval,
	}
}

// NeedLeaderElection is false: every replica has a configuration.
func (r *reloader) NeedLeaderElection() bool { return false }

// Start reads the file until ctx ends: when something changes in its folder,
// and now and then. A mounted ConfigMap changes by a symlink beside the file
// that is replaced, and editors replace files, so it is the folder that tells.
func (r *reloader) Start(ctx context.Context) error {
	folder, err := fsnotify.NewWatcher()
	if err != nil {
		// There is a limit to how many a node has.
		r.log.Error(err, "the configuration file's folder is not watched; the file is read now and then", "interval", r.poll.String())
		return r.follow(ctx, nil, func() {})
	}
	defer folder.Close()
	return r.follow(ctx, folder.Events, func() {
		// Again and again: the folder may have been replaced. A second watch of the same one is none.
		if err := folder.Add(filepath.Dir(r.file.Path)); err != nil {
			r.log.V(1).Info("watch the configuration file's folder", "error", err.Error())
		}
	})
}

func (r *reloader) follow(ctx context.Context, changes <-chan fsnotify.Event, watch func()) error {
	ticks := time.NewTicker(r.poll)
	defer ticks.Stop()
	settled := time.NewTimer(0) // at once: the file may be another since the start
	defer settled.Stop()
	watch()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changes:
			settled.Reset(settleTime)
		case <-ticks.C:
			watch()
			r.check()
		case <-settled.C:
			r.check()
		}
	}
}

// check reads the file, and where it is another than before has the Handler go
// by it, or, where it is bad, go on as it did.
func (r *reloader) check() {
	text, err := os.ReadFile(r.file.Path)
	seen := "text " + string(text)
	if err != nil {
		seen = "error " + err.Error()
	}
	if r.started && seen == r.seen {
		return
	}
	r.started, r.seen = true, seen
	var cfg config.Config
	if err == nil {
		cfg, err = r.file.Parse(text)
	}
	if err == nil {
		r.handler.SetConfig(cfg) // first: what the metrics say to be in force is
	}
	r.metrics.reloaded(err == nil, time.Now())
	if err != nil {
		r.refuse(err)
		return
	}
	r.log.Info("the configuration is in force", "file", r.file.Path)
}

func (r *reloader) refuse(err error) {
	r.log.Error(err, "the configuration is bad; the last good one stays in force", "file", r.file.Path)
	if r.self != nil {
		r.events.warn(r.self, eventBadConfig, actionReload,
			fmt.Sprintf("%s is bad, and the last good configuration stays in force: %s", r.file.Path, err))
	}
}
