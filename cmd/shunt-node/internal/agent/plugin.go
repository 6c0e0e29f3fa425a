//go:build linux

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
)

const (
	pluginName = "shunt"
	// pluginIndex orders the plugins of a node. No other plugin's work on a sandbox
	// depends on the rules.
	pluginIndex = "50"
	// reconnectPause is how long a lost runtime is left alone.
	reconnectPause = time.Second
)

// Serve keeps the agent connected to the container runtime until ctx ends. The runtime
// may not be there, restart, or drop a plugin that took too long: what was missed
// meanwhile is made up for when it is back.
func (a *Agent) Serve(ctx context.Context) {
	go a.resync(ctx)
	for {
		err := a.connect(ctx)
		a.Metrics.connected.Store(false)
		if ctx.Err() == nil {
			a.Log.Error("not connected to the container runtime", "socket", a.Socket, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(reconnectPause):
		}
	}
}

// connect serves one connection, and returns when it ends.
func (a *Agent) connect(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	connection, err := stub.New(&plugin{agent: a},
		stub.WithPluginName(pluginName), stub.WithPluginIdx(pluginIndex), stub.WithSocketPath(a.Socket),
		stub.WithLogger(nriLog{a.Log}), stub.WithOnClose(cancel),
		// A runtime that knows failure policies fails a sandbox rather than go on
		// without its rules. Others go on, and the pod's gate waits.
		stub.WithFailurePolicy(&api.FailurePolicy{FailRequest: true}))
	if err != nil {
		return fmt.Errorf("make a plugin of NRI: %w", err)
	}
	return connection.Run(ctx)
}

// plugin is what NRI calls. The methods that it has are the events that it gets.
type plugin struct{ agent *Agent }

// NRI calls no method of another signature, and does not say so.
var _ interface {
	stub.SynchronizeInterface
	stub.RunPodInterface
	stub.StopPodInterface
	stub.StartContainerInterface
} = (*plugin)(nil)

// Synchronize is told of the pods that there are when the plugin connects. It returns
// at once: the runtime starts nothing before.
func (p *plugin) Synchronize(_ context.Context, sandboxes []*api.PodSandbox, _ []*api.Container) ([]*api.ContainerUpdate, error) {
	p.agent.Metrics.connected.Store(true)
	var pods []pod
	for _, sandbox := range sandboxes {
		// A sandbox that has ended is still told of, without its network.
		if found, wanted := podOf(sandbox); wanted && found.netns != "" {
			pods = append(pods, found)
		}
	}
	p.agent.Log.Info("connected to the container runtime", "sandboxes", len(sandboxes), "withRules", len(pods))
	go p.agent.synchronize(pods)
	return nil, nil
}

// RunPodSandbox is told of a new sandbox, whose network is there and in which nothing
// runs yet.
func (p *plugin) RunPodSandbox(ctx context.Context, sandbox *api.PodSandbox) error {
	found, wanted := podOf(sandbox)
	if !wanted {
		return nil
	}
	return p.agent.begin(ctx, found)
}

// StartContainer is told of a container that starts. If the pod's set-up has failed, or
// the runtime made its sandbox while the agent connected and told of it neither way,
// as CRI-O and containerd before 1.7.26 may, its gate waits: now it is set up.
func (p *plugin) StartContainer(_ context.Context, sandbox *api.PodSandbox, _ *api.Container) error {
	if found, wanted := podOf(sandbox); wanted && found.netns != "" {
		go p.agent.takeOver(found)
	}
	return nil
}

// StopPodSandbox is told of a sandbox that ends.
func (p *plugin) StopPodSandbox(_ context.Context, sandbox *api.PodSandbox) error {
	p.agent.forget(pod{sandbox: sandbox.GetId()})
	return nil
}

// nriLog is the agent's log for NRI's library.
type nriLog struct{ log *slog.Logger }

func (l nriLog) Debugf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, fmt.Sprintf(format, args...))
}

// Infof logs at the level debug: the library tells of every step.
func (l nriLog) Infof(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, fmt.Sprintf(format, args...))
}

func (l nriLog) Warnf(ctx context.Context, format string, args ...any) {
	l.log.WarnContext(ctx, fmt.Sprintf(format, args...))
}

func (l nriLog) Errorf(ctx context.Context, format string, args ...any) {
	l.log.ErrorContext(ctx, fmt.Sprintf(format, args...))
}

// Connected reports whether the container runtime has the agent as its plugin.
func (a *Agent) Connected() bool { return a.Metrics.connected.Load() }
