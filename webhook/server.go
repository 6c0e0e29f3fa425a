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

// What a client may take of the server. API servers stay far below all of it.
const (
	// headerTime is for the handshake, and for the headers of each request. On
	// a busy node thousands of handshakes at once take seconds, and who is slow
	// has but a connection, which gives way to others.
	headerTime = 30 * time.Second
	// writeTime is from the headers to the last byte of the answer.
	writeTime = answerTime + sendTime + headerTime
	// idleTime is how long API servers keep a connection without a request.
	idleTime   = 90 * time.Second
	maxHeaders = 8 << 10
	// stopTime is for the requests under way when the server is told to stop.
	stopTime = time.Minute
)

// server serves a Handler over TLS. It is a webhook.Server of its own because
// that of controller-runtime bounds nothing.
type server struct {
	webhook.Server // Register and WebhookMux
	opts           Options
	metrics        *Metrics
	// certificateThere is closed once there is one to serve; nil where it is
	// there from the start.
	certificateThere <-chan struct{}
	listening        atomic.Bool
}

// NewServer returns the HTTPS server of opts, without a manager: Register a
// Handler's HTTP at Path. Starting it takes a certificate in CertDir, whose
// expiry metrics then has.
func NewServer(opts Options, metrics *Metrics) webhook.Server { return newServer(opts, metrics) }

func newServer(opts Options, metrics *Metrics) *server {
	return &server{
		opts: opts, metrics: metrics,
		Server: webhook.NewServer(webhook.Options{Host: opts.Host, Port: opts.Port, WebhookMux: http.NewServeMux()}),
	}
}

// Start serves until ctx ends, and then until what is under way is answered. A
// certificate that changes is read again; one that does not fit its key is not
// taken, and the last good one served on.
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

// serve answers until ctx ends. That is not the end of any request: its context
// ends when its client goes.
func (s *server) serve(ctx context.Context, listener net.Listener, config *tls.Config) error {
	open := newConnections(maxConnections, func() { s.metrics.drop(droppedConnection) })
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // as API servers speak to webhooks; a connection is one request at a time
	server := &http.Server{
		Handler: s.WebhookMux(), TLSConfig: config, Protocols: protocols, ConnState: open.changed,
		ReadHeaderTimeout: headerTime, WriteTimeout: writeTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeaders,
		// Failed handshakes: whoever scans ports must not fill the log.
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

// StartedChecker reports whether the server listens. It opens no connection,
// which would have to wait where there are too many.
func (s *server) StartedChecker() healthz.Checker {
	return func(*http.Request) error {
		if !s.listening.Load() {
			return errors.New("the webhook's server does not listen yet")
		}
		return nil
	}
}
