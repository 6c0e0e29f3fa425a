package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
)

// Limits for a client. API servers stay far below all of them.
const (
	// headerTime is for the handshake, and for the headers of each request. On a
	// busy node thousands of handshakes at once take seconds. A slow client holds
	// only a connection, which can be closed for others.
	headerTime = 30 * time.Second
	// writeTime is from the headers to the last byte of the answer.
	writeTime = answerTime + sendTime + headerTime
	// idleTime is how long API servers keep a connection without a request.
	idleTime   = 90 * time.Second
	maxHeaders = 8 << 10
	// stopTime is for the requests in progress when the server is told to stop.
	stopTime = time.Minute
)

// server serves a Handler over TLS. controller-runtime's webhook.Server has no
// limits, so this is one of our own.
type server struct {
	webhook.Server // Register and WebhookMux
	opts           Options
	metrics        *Metrics
	// certificateThere is closed once there is a certificate; nil if there is one
	// from the start.
	certificateThere <-chan struct{}
	listening        atomic.Bool
}

// NewServer returns the HTTPS server of opts, without a manager: Register a
// Handler's HTTP at Path. It needs a certificate in CertDir; metrics gets its
// expiry.
func NewServer(opts Options, metrics *Metrics) webhook.Server { return newServer(opts, metrics) }

func newServer(opts Options, metrics *Metrics) *server {
	return &server{
		opts: opts, metrics: metrics,
		Server: webhook.NewServer(webhook.Options{Host: opts.Host, Port: opts.Port, WebhookMux: http.NewServeMux()}),
	}
}

// Start serves until ctx ends, and then until requests in progress are answered. It
// reads a changed certificate again. If that does not match its key, it keeps
// serving the last good one.
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
	config, err := s.tlsConfig()
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(s.opts.Host, strconv.Itoa(s.opts.Port)))
	if err != nil {
		return fmt.Errorf("listen for the webhook: %w", err)
	}
	return s.serve(ctx, listener, config)
}

func (s *server) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.metrics.certificate.current() },
	}
	if s.opts.ClientCAFile == "" {
		return config, nil
	}
	text, err := os.ReadFile(s.opts.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("read the CA of clients: %w", err)
	}
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read the CA of clients: no certificate in %s", s.opts.ClientCAFile)
	}
	return config, nil
}

// serve answers until ctx ends. The end of ctx ends no request: a request's context
// ends when its client goes away.
func (s *server) serve(ctx context.Context, listener net.Listener, config *tls.Config) error {
	open := newConnections(maxConnections, func() { s.metrics.drop(droppedConnection) })
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // as API servers speak to webhooks, with one request at a time on a connection
	server := &http.Server{
		Handler: s.WebhookMux(), TLSConfig: config, Protocols: protocols, ConnState: open.changed,
		ReadHeaderTimeout: headerTime, WriteTimeout: writeTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeaders,
		// Failed handshakes: a port scan must not fill the log.
		ErrorLog: slog.NewLogLogger(logr.ToSlogHandler(s.opts.Log.V(1)), slog.LevelInfo),
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			s.opts.Log.Error(err, "requests are still under way when the server stops")
		}
	}()
	s.opts.Log.Info("serving the webhook", "address", listener.Addr().String())
	s.listening.Store(true)
	if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the webhook: %w", err)
	}
	<-stopped
	return nil
}

// StartedChecker reports whether the server listens. It opens no connection, which
// would have to wait if there are too many.
func (s *server) StartedChecker() healthz.Checker {
	return func(*http.Request) error {
		if !s.listening.Load() {
			return errors.New("the webhook's server does not listen yet")
		}
		return nil
	}
}
