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
	// pollInterval is how often the file is read without a notification: some file
	// systems send none, and none comes for what is behind a symlink.
	pollInterval = 10 * time.Second
	// settleTime is the pause for writers that change the file in several steps.
	settleTime = 100 * time.Millisecond
)

// ConfigFile is a configuration file that is read again when it changes.
type ConfigFile struct {
	// Path of the file; empty if there is none.
	Path string
	// Parse returns the configuration that a start with this text would use. It may
	// read files of the same folder.
	Parse func(text []byte, beside config.ReadFile) (config.Config, error)
}

// reloader makes a Handler follow a file. It is a manager's Runnable.
type reloader struct {
	file    ConfigFile
	handler *Handler
	metrics *Metrics
	log     logr.Logger
	events  *announcer
	self    *corev1.ObjectReference
	poll    time.Duration

	seen    string // the texts or errors of the last reading
	started bool   // seen is set
}

func newReloader(opts Options, handler *Handler) *reloader {
	return &reloader{
		file: opts.Config, handler: handler, metrics: handler.metrics, log: opts.Log, events: handler.events, self: opts.Self,
		poll: pollInterval,
	}
}

// NeedLeaderElection returns false: every replica has a configuration.
func (r *reloader) NeedLeaderElection() bool { return false }

// Start reads the file until ctx ends: when something changes in its folder, and
// every pollInterval. It watches the folder and not the file: kubelet changes a
// mounted ConfigMap by replacing a symlink beside the file, and editors replace
// files.
func (r *reloader) Start(ctx context.Context) error {
	folder, err := fsnotify.NewWatcher()
	if err != nil {
		// A node has a limit for watches.
		r.log.Error(err, "the configuration file's folder cannot be watched; the file is polled", "interval", r.poll.String())
		return r.follow(ctx, nil, func() {})
	}
	defer folder.Close()
	return r.follow(ctx, folder.Events, func() {
		// Each time: the folder may have been replaced. Watching the same folder
		// twice has no effect.
		if err := folder.Add(filepath.Dir(r.file.Path)); err != nil {
			r.log.V(1).Info("watch the configuration file's folder", "error", err.Error())
		}
	})
}

func (r *reloader) follow(ctx context.Context, changes <-chan fsnotify.Event, watch func()) error {
	ticks := time.NewTicker(r.poll)
	defer ticks.Stop()
	settled := time.NewTimer(0) // at once: the file may have changed since the start
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

// check reads the file, and those that it names. If one has changed, the Handler
// uses it; if it is bad, the Handler keeps the last good configuration.
func (r *reloader) check() {
	seen := ""
	read := func(name string) ([]byte, error) {
		text, err := os.ReadFile(filepath.Join(filepath.Dir(r.file.Path), name))
		seen += fmt.Sprintf("%s: %q, error %v\n", name, text, err)
		return text, err
	}
	text, err := read(filepath.Base(r.file.Path))
	var cfg config.Config
	if err == nil {
		cfg, err = r.file.Parse(text, read)
	}
	if r.started && seen == r.seen {
		return
	}
	first := !r.started
	r.started, r.seen = true, seen
	if err != nil {
		r.metrics.reloaded(false, time.Now())
		r.reject(err)
		return
	}
	before := r.handler.current.configure(cfg) // before the metrics report it
	r.metrics.reloaded(true, time.Now())
	key := "changed"
	if first {
		key, before = "notDefault", config.Default()
	}
	r.log.Info("the configuration is in force", "file", r.file.Path, key, lines(config.Differences(before, cfg)))
}

// lines returns a line for each difference, as many as a line of the log may have.
func lines(differences []config.Difference) []string {
	all := make([]string, len(differences))
	for i, d := range differences {
		all[i] = clip(d.String(), maxDifference)
	}
	return fitTexts(all, maxLogged)
}

func (r *reloader) reject(err error) {
	r.handler.current.reject(err)
	r.log.Error(err, "the configuration is bad; the last good one stays in force", "file", r.file.Path)
	if r.self != nil {
		r.events.warn(r.self, eventBadConfig, actionReload,
			fmt.Sprintf("%s is bad, and the last good configuration stays in force: %s", r.file.Path, err))
	}
}
