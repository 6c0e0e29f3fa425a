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

// Options are what a manager serves, and where.
type Options struct {
	// Host is the address that the webhook listens on; empty for all.
	Host string
	// Port is the webhook's, 1 to 65535.
	Port int
	// CertDir holds tls.crt and tls.key, like a mounted Secret of cert-manager.
	// They must exist when the manager starts, and are read again when they change.
	CertDir string
	// ClientCAFile is a PEM file with the CA that must have signed clients'
	// certificates; empty if clients need none.
	ClientCAFile string
	// SelfSigned makes the webhook create its own certificate and keep it in
	// CertDir, which must exist; nil if somebody else provides it.
	SelfSigned *SelfSigned
	// MetricsAddress and ProbeAddress are host:port; "0" serves none.
	MetricsAddress string
	ProbeAddress   string
	// DebugAddress is the host:port of the configuration in force and Go's
	// profiles; "0" and "" serve neither. Keep it on loopback: a profile shows what
	// is in memory.
	DebugAddress string
	// Config is the file that replaces the initial configuration whenever it
	// changes; nothing is read without a Path.
	Config ConfigFile
	// CountPods is how often the pods of the cluster are counted by how they compare
	// with new ones; 0 for never.
	CountPods time.Duration
	// Self is the pod of this process, which gets the Events about a bad
	// configuration; nil if it is not known.
	Self *corev1.ObjectReference
	// Version is that of the program, which the status of each pod records; empty
	// for inject.DevVersion.
	Version string
	// Registry receives the metrics; nil for controller-runtime's, which
	// MetricsAddress serves.
	Registry prometheus.Registerer
	Log      logr.Logger
}

// DefaultOptions returns the ports and paths of the manifests in config.
func DefaultOptions() Options {
	return Options{
		Port: webhook.DefaultPort, CertDir: "/tmp/k8s-webhook-server/serving-certs",
		MetricsAddress: ":8080", ProbeAddress: ":8081", DebugAddress: config.InForceAddress,
	}
}

// NewManager returns a manager that serves a Handler for the cluster of api. It
// needs a certificate in CertDir, the right to get, list and watch namespaces, and
// for Events the right to create and patch them. With CountPods it needs the right
// to list pods and webhook configurations. With SelfSigned it needs no certificate,
// but the right to get, list, watch and update its Secret and its webhook
// configuration. Replicas serve side by side: there is no leader.
func NewManager(api *rest.Config, cfg config.Config, opts Options) (manager.Manager, error) {
	counts := NewMetrics()
	server := newServer(opts, counts)
	mgr, err := manager.New(api, manager.Options{
		Scheme:                 newScheme(),
		Logger:                 opts.Log,
		WebhookServer:          server,
		Metrics:                metricsserver.Options{BindAddress: opts.MetricsAddress},
		HealthProbeBindAddress: opts.ProbeAddress,
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(), ByObject: opts.SelfSigned.selection(),
		},
		// Requests in progress are answered first; kubelet waits 30 s.
		GracefulShutdownTimeout: new(20 * time.Second),
	})
	if err != nil {
		return nil, fmt.Errorf("set up the manager: %w", err)
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
	handler.current.setVersion(opts.Version)
	handler.current.waitForVersion()
	if err := askVersion(mgr, api, handler, opts.Log); err != nil {
		return nil, err
	}
	handler.RecordEvents(mgr.GetEventRecorder(reporter))
	// The manager starts the server that GetWebhookServer returned, not the one
	// that it was given.
	mgr.GetWebhookServer().Register(Path, handler.HTTP(opts.Log))
	if opts.DebugAddress != "" && opts.DebugAddress != "0" {
		if err := mgr.Add(newDebugServer(opts, &handler.current)); err != nil {
			return nil, fmt.Errorf("serve the configuration in force: %w", err)
		}
	}
	if opts.Config.Path != "" {
		if err := mgr.Add(newReloader(opts, handler)); err != nil {
			return nil, fmt.Errorf("watch the configuration file: %w", err)
		}
	}
	if opts.CountPods > 0 {
		err := mgr.Add(&census{
			live: mgr.GetAPIReader(), cache: mgr.GetCache(), current: &handler.current, counts: counts.pods, every: opts.CountPods,
			log: opts.Log,
		})
		if err != nil {
			return nil, fmt.Errorf("count the pods: %w", err)
		}
	}
	return mgr, addChecks(mgr, server, handler)
}

// askVersion makes the manager read the API server's version when it starts.
func askVersion(mgr manager.Manager, api *rest.Config, handler *Handler, log logr.Logger) error {
	client, err := discovery.NewDiscoveryClientForConfigAndClient(api, mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("read the API server's version: %w", err)
	}
	if err := mgr.Add(&versionReader{api: client, report: handler.current.setNativeSidecars, log: log, retry: firstRetry}); err != nil {
		return fmt.Errorf("read the API server's version: %w", err)
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
		return nil // controller-runtime's controllers, which SelfSigned runs, have registered those of the process
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

// addChecks makes the pod ready once it answers TLS, and knows the namespaces and
// the API server's version.
func addChecks(mgr manager.Manager, server webhook.Server, handler *Handler) error {
	return errors.Join(
		mgr.AddHealthzCheck("ping", healthz.Ping),
		mgr.AddReadyzCheck("webhook", server.StartedChecker()),
		mgr.AddReadyzCheck("version", handler.current.check),
		mgr.AddReadyzCheck("namespaces", func(req *http.Request) error { return synced(req.Context(), mgr.GetCache()) }))
}

// synced waits a moment for the namespaces: kubelet repeats a failed probe only
// after its period.
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
