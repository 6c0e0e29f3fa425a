package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shunt-dev/shunt/inject/config"
)

// longestProfile leaves time for the longest profile that somebody would ask for,
// and for its download.
const longestProfile = 5 * time.Minute

// debugServer serves the configuration in force and Go's profiles, on loopback by
// default. It is a manager's Runnable. Nothing depends on it: where it cannot
// listen, the webhook works without it.
type debugServer struct {
	address string
	mux     http.Handler
	log     logr.Logger
}

func newDebugServer(opts Options, current *current) *debugServer {
	mux := http.NewServeMux()
	mux.Handle("GET "+config.InForcePath, serveInForce(opts, current))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return &debugServer{address: opts.DebugAddress, mux: mux, log: opts.Log}
}

// NeedLeaderElection returns false: every replica has a configuration.
func (d *debugServer) NeedLeaderElection() bool { return false }

// Start serves until ctx ends.
func (d *debugServer) Start(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", d.address)
	if err != nil {
		d.log.Error(err, "nothing serves the configuration in force and Go's profiles", "address", d.address)
		return nil
	}
	server := &http.Server{
		Handler: d.mux, ReadHeaderTimeout: headerTime, WriteTimeout: longestProfile, IdleTimeout: idleTime, MaxHeaderBytes: maxHeaders,
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // a profile under way ends with the process
	defer stop()
	d.log.Info("serving the configuration in force and Go's profiles", "address", listener.Addr().String())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		d.log.Error(err, "nothing serves the configuration in force and Go's profiles any more", "address", d.address)
	}
	return nil
}

// serveInForce answers with a config.InForce, or 503 and a sentence.
func serveInForce(opts Options, current *current) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		answer, err := inForce(opts, current)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(append(answer, '\n'))
	}
}

func inForce(opts Options, current *current) ([]byte, error) {
	state, err := current.state()
	if err != nil {
		return nil, err
	}
	configuration, err := config.Encode(state.cfg)
	if err != nil {
		return nil, fmt.Errorf("encode the configuration: %w", err)
	}
	return json.MarshalIndent(config.InForce{
		Version: opts.Version, Revision: state.cfg.Revision, File: opts.Config.Path, Since: metav1.NewTime(state.since),
		Error: state.rejected, NativeSidecars: state.nativeSidecars, Configuration: configuration,
	}, "", "  ")
}
