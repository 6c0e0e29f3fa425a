package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/shunt-dev/shunt/inject/config"
)

var namespaceKind = corev1.SchemeGroupVersion.WithKind("Namespace")

// Options say where a manager serves what.
type Options struct {
	// Host is the address that the webhook listens on; empty for all.
	Host string
	// Port is the webhook's, 1 to 65535.
	Port int
	// CertDir holds tls.crt and tls.key, as a mounted Secret of cert-manager
	// does. They must be there when the manager starts, and are read again
	// when they change.
	CertDir string
	// ClientCAFile has the CA that clients need a certificate of, in PEM; empty
	// where they need none.
	ClientCAFile string
	// SelfSigned has the certificate made here and kept in CertDir, which has
	// to be there; nil where somebody else puts it there.
	SelfSigned *SelfSigned
	// MetricsAddress and ProbeAddress are host:port; "0" serves none.
	MetricsAddress string
	ProbeAddress   string
	// PprofAddress is the host:port of Go's profiles; "0" and "" serve none.
	PprofAddress string
	// Config is read again when it changes, and takes the place of the
	// configuration that the manager starts with; without a Path none is read.
	Config ConfigFile
	// Self is the pod that this process runs in, which a bad configuration is
	// an Event of; nil where it is not known.
	Self *corev1.ObjectReference
	// Registry takes the metrics; nil for controller-runtime's, which
	// MetricsAddress serves.
	Registry prometheus.Registerer
	Log      logr.Logger
}

// DefaultOptions are the ports and paths that the manifests in config have.
func DefaultOptions() Options {
	return Options{
		Port: webhook.DefaultPort, CertDir: "/tmp/k8s-webhook-server/serving-certs",
		MetricsAddress: ":8080", ProbeAddress: ":8081",
	}
}

// NewManager returns a manager that serves a Handler for the cluster of api.
// Starting it takes a certificate in CertDir, the right to get, list and
// watch namespaces, and for Events that to create and patch them; without a
// certificate, SelfSigned and the right to get, list, watch and update its
// Secret and its webhook configuration. Replicas
// serve side by side: there is no leader.
func NewManager(api *rest.Config, cfg config.Config, opts Options) (manager.Manager, error) {
	counts := NewMetrics()
	server := newServer(opts, counts)
	mgr, err := manager.New(api, manager.Options{
		Scheme:                 newScheme(),
		Logger:                 opts.Log,
		WebhookServer:          server,
		Metrics:                metricsserver.Options{BindAddress: opts.MetricsAddress},
		HealthProbeBindAddress: opts.ProbeAddress,
		PprofBindAddress:       opts.PprofAddress,
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(), ByObject: opts.SelfSigned.selection(),
		},
		// In-flight requests are answered first; kubelet waits 30 s.
		GracefulShutdownTimeout: new(20 * time.Second),
	})
	if err != nil {
		return nil, fmt.Errorf("set the manager up: %w", err)
	}
	if opts.SelfSigned != nil {
		if server.certificateThere, err = opts.SelfSigned.add(mgr, opts); err != nil {
			return nil, err
		}
	}
	if err := register(opts.Registry, counts); err != nil {
		return nil, err
	}
	namespaces := &ClusterNamespaces{Cache: mgr.GetCache(), Live: mgr.GetAPIReader()}
	handler := NewHandler(cfg, namespaces, counts)
	namespaces.Asks = handler.asks
	handler.current.await()
	if err := askVersion(mgr, api, handler, opts.Log); err != nil {
		return nil, err
	}
	handler.RecordEvents(mgr.GetEventRecorder(reporter))
	// The manager starts the server that has been asked for, not the one that it was given.
	mgr.GetWebhookServer().Register(Path, handler.HTTP(opts.Log))
	if opts.Config.Path != "" {
		if err := mgr.Add(newReloader(opts, handler)); err != nil {
			return nil, fmt.Errorf("have the configuration file read: %w", err)
		}
	}
	return mgr, addChecks(mgr, server, handler)
}

// askVersion has the API server asked for its version when the manager starts.
func askVersion(mgr manager.Manager, api *rest.Config, handler *Handler, log logr.Logger) error {
	client, err := discovery.NewDiscoveryClientForConfigAndClient(api, mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("have the API server asked for its version: %w", err)
	}
	if err := mgr.Add(&asker{api: client, tell: handler.current.knows, log: log, retry: firstRetry}); err != nil {
		return fmt.Errorf("have the API server asked for its version: %w", err)
	}
	return nil
}

// register adds the webhook's metrics, and those of the process.
func register(registry prometheus.Registerer, counts *Metrics) error {
	own := registry != nil
	if !own {
		registry = metrics.Registry
	}
	if err := registry.Register(counts); err != nil {
		return fmt.Errorf("register the webhook's metrics: %w", err)
	}
	if !own {
		return nil // those of the process are there since controller-runtime's controllers, which SelfSigned runs, are linked
	}
	for _, process := range []prometheus.Collector{
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewGoCollector(),
	} {
		if err := registry.Register(process); err != nil {
			return fmt.Errorf("register the process's metrics: %w", err)
		}
	}
	return nil
}

// addChecks makes the pod ready when it answers TLS, and knows the namespaces and
// the API server's version.
func addChecks(mgr manager.Manager, server webhook.Server, handler *Handler) error {
	return errors.Join(
		mgr.AddHealthzCheck("ping", healthz.Ping),
		mgr.AddReadyzCheck("webhook", server.StartedChecker()),
		mgr.AddReadyzCheck("version", handler.current.check),
		mgr.AddReadyzCheck("namespaces", func(req *http.Request) error { return synced(req.Context(), mgr.GetCache()) }))
}

// synced has the namespaces read, and gives that a moment: a probe that fails
// is not repeated before kubelet's period is over.
func synced(ctx context.Context, c cache.Cache) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := c.GetInformer(ctx, namespaceMetadata()); err != nil {
		return fmt.Errorf("read the namespaces: %w", err)
	}
	if !c.WaitForCacheSync(ctx) {
		return errors.New("the namespaces have not been read yet")
	}
	return nil
}
