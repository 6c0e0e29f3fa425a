//go:build linux

// Command shunt-node takes the sandboxes of a node's container runtime in, by NRI, and
// sets their network namespaces up as the injector says, so that a pod's connections
// go through its proxy without a privileged container in the pod.
//
// Exit codes: 0 stopped by a signal, or printed --help or --version; 1 could not
// start or continue; 2 bad arguments, nothing was started.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	client "k8s.io/client-go/kubernetes/typed/events/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/shunt-dev/shunt/cmd/internal/daemon"
	"github.com/shunt-dev/shunt/cmd/shunt-node/internal/agent"
)

// version is set by the linker.
var version = "dev"

func main() {
	// The main goroutine keeps the main thread, so that no other enters a pod's
	// namespace on it: /proc/self shows that thread's.
	runtime.LockOSThread()
	daemon.Main("shunt-node", run)
}

// run serves the agent until ctx ends. Logs go to stderr, one line each.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	settings, err := parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		_, err := fmt.Fprint(stdout, "Usage: shunt-node [flags]\n\n", usage())
		return err
	case err != nil:
		return err
	case settings.version:
		_, err := fmt.Fprintln(stdout, "shunt-node", version)
		return err
	}
	log := slog.New(settings.log.Handler(stderr))
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewGoCollector())
	opts := settings.options
	opts.Log, opts.Metrics = log, agent.NewMetrics(registry)
	if opts.Events, err = events(settings, log); err != nil {
		return fmt.Errorf("find the API server: %w", err)
	}
	node := agent.New(opts)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { node.Serve(ctx); return nil })
	metrics := http.NewServeMux()
	metrics.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	health := http.NewServeMux()
	health.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	health.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !node.Connected() {
			http.Error(w, "not connected to the container runtime", http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusOK)
	})
	for address, mux := range map[string]http.Handler{settings.metricsAddress: metrics, settings.probeAddress: health} {
		if address != "0" {
			group.Go(func() error { return serve(ctx, address, mux) })
		}
	}
	log.Info("starting", "version", version, "socket", opts.Socket, "resync", opts.Resync.String(), "repair", opts.Repair)
	return group.Wait()
}

// events returns the Events of this node's agent; nil outside of a cluster.
func events(settings settings, log *slog.Logger) (*agent.Events, error) {
	var api *rest.Config
	var err error
	if settings.kubeconfig == "" {
		api, err = rest.InClusterConfig()
	} else {
		api, err = clientcmd.BuildConfigFromFlags("", settings.kubeconfig)
	}
	if errors.Is(err, rest.ErrNotInCluster) {
		log.Warn("there is no API server to write Events to", "error", err)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	events, err := client.NewForConfig(api)
	if err != nil {
		return nil, err
	}
	return agent.NewEvents(events, os.Getenv("NODE_NAME"), log), nil
}

// serve answers HTTP until ctx ends.
func serve(ctx context.Context, address string, handler http.Handler) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", address, err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", address, err)
	}
	return nil
}
