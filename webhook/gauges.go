package webhook

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
)

// Results of a reload.
const (
	reloadOK     = "ok"
	reloadFailed = "failed"
)

// configState holds the results of the last readings of the configuration file.
// Without a file it has no value: 0 would mean a failure, or 1970.
type configState struct {
	lastGood, successful *prometheus.Desc

	mu     sync.Mutex
	known  bool
	ok     bool
	goodAt time.Time
}

func newConfigState() *configState {
	return &configState{
		lastGood: prometheus.NewDesc("shunt_webhook_config_last_reload_success_timestamp_seconds",
			"When the configuration that is in force was read.", nil, nil),
		successful: prometheus.NewDesc("shunt_webhook_config_last_reload_successful",
			"1 where the configuration file is in force as it is now, 0 where it is bad and an earlier one is.", nil, nil),
	}
}

func (c *configState) read(ok bool, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known, c.ok = true, ok
	if ok {
		c.goodAt = now
	}
}

// Describe implements prometheus.Collector.
func (c *configState) Describe(descs chan<- *prometheus.Desc) {
	descs <- c.lastGood
	descs <- c.successful
}

// Collect implements prometheus.Collector.
func (c *configState) Collect(values chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.known {
		return
	}
	successful := 0.0
	if c.ok {
		successful = 1
	}
	values <- prometheus.MustNewConstMetric(c.successful, prometheus.GaugeValue, successful)
	if !c.goodAt.IsZero() {
		values <- prometheus.MustNewConstMetric(c.lastGood, prometheus.GaugeValue, seconds(c.goodAt))
	}
}

// servingCertificate is the certificate that clients see. Each scrape reads the
// expiry from it, so that the two cannot differ.
type servingCertificate struct {
	expiry  *prometheus.Desc
	watcher atomic.Pointer[certwatcher.CertWatcher]
}

func newServingCertificate() *servingCertificate {
	return &servingCertificate{expiry: prometheus.NewDesc("shunt_webhook_certificate_expiry_timestamp_seconds",
		"When the certificate that the webhook serves expires.", nil, nil)}
}

func (s *servingCertificate) watch(watcher *certwatcher.CertWatcher) { s.watcher.Store(watcher) }

func (s *servingCertificate) current() (*tls.Certificate, error) {
	watcher := s.watcher.Load()
	if watcher == nil {
		return nil, errors.New("the webhook's certificate has not been read")
	}
	return watcher.GetCertificate(nil)
}

// Describe implements prometheus.Collector.
func (s *servingCertificate) Describe(descs chan<- *prometheus.Desc) { descs <- s.expiry }

// Collect implements prometheus.Collector.
func (s *servingCertificate) Collect(values chan<- prometheus.Metric) {
	certificate, err := s.current()
	if err != nil {
		return // nothing is served
	}
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		return // it was parsed when it was read, or it would not be served
	}
	values <- prometheus.MustNewConstMetric(s.expiry, prometheus.GaugeValue, seconds(leaf.NotAfter))
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
