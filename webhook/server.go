package webhook

import (
	"context"
	"crypto/tls"
	"fmt"
	"path/filepath"

	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
)

// server is a webhook.Server whose certificate Metrics can ask for.
type server struct {
	webhook.Server
	opts    Options
	metrics *Metrics
	// certificateThere is closed once there is one to serve; nil where it is
	// there from the start.
	certificateThere <-chan struct{}
}

// NewServer returns the HTTPS server of opts, without a manager: Register a
// Handler's HTTP at Path. Starting it takes a certificate in CertDir, whose
// expiry metrics then has.
func NewServer(opts Options, metrics *Metrics) webhook.Server { return newServer(opts, metrics) }

func newServer(opts Options, metrics *Metrics) *server {
	s := &server{opts: opts, metrics: metrics}
	s.Server = webhook.NewServer(webhook.Options{
		Host: opts.Host, Port: opts.Port, CertDir: opts.CertDir,
		TLSOpts: []func(*tls.Config){func(c *tls.Config) {
			c.MinVersion = tls.VersionTLS13
			c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return metrics.certificate.current() }
		}},
	})
	return s
}

// Start serves until ctx ends. A certificate that changes is read again; one
// that does not fit its key is not taken, and the last good one served on.
func (s *server) Start(ctx context.Context) error {
	if s.certificateThere != nil {
		select {
		case <-s.certificateThere:
		case <-ctx.Done():
			return nil
		}
	}
	watcher, err := certwatcher.New(filepath.Join(s.opts.CertDir, "tls.crt"), filepath.Join(s.opts.CertDir, "tls.key"))
	if err != nil {
		return fmt.Errorf("read the webhook's certificate in %s: %w", s.opts.CertDir, err)
	}
	s.metrics.certificate.watch(watcher)
	go func() {
		if err := watcher.Start(ctx); err != nil {
			s.opts.Log.Error(err, "the webhook's certificate is not watched any more", "folder", s.opts.CertDir)
		}
	}()
	return s.Server.Start(ctx)
}
