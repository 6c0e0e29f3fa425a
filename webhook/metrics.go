package webhook

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shunt-dev/shunt/inject"
)

// Metrics counts and times a Handler's answers. It is a prometheus.Collector;
// whoever serves metrics registers it. docs/webhook.md describes each metric.
type Metrics struct {
	requests  *prometheus.CounterVec
	duration  prometheus.Histogram
	patchSize prometheus.Histogram
	dropped   *prometheus.CounterVec

	reloads     *prometheus.CounterVec
	config      *configState
	certificate *servingCertificate
	pods        *podCounts
}

var _ prometheus.Collector = (*Metrics)(nil)

// NewMetrics returns metrics in which every result with each of its reasons exists
// from the start, at 0: a rate needs a value to rise from.
func NewMetrics() *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shunt_webhook_requests_total",
			Help: "Admission requests by result (injected, skipped, denied, failed) and by reason.",
		}, []string{"result", "reason"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shunt_webhook_duration_seconds",
			Help: "Time from an admission request to its answer, without the connection's.",
			// 0.1 ms to 1 s: an answer takes less than 1 ms, a lookup of an
			// uncached namespace some tens of milliseconds.
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1},
		}),
		patchSize: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shunt_webhook_patch_size_bytes",
			Help: "Size of the JSON patches that inject pods.",
			// 1 KiB to 1 MiB: a usual patch takes a few KiB, and an API server
			// accepts objects of up to 3 MiB.
			Buckets: prometheus.ExponentialBuckets(1<<10, 2, 11),
		}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shunt_webhook_dropped_total",
			Help: "Connections and bodies that were slow and had to give way to others, by what (body, connection).",
		}, []string{"what"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shunt_webhook_config_reloads_total",
			Help: "Times that the configuration file was read and was another than before, by result (ok, failed).",
		}, []string{"result"}),
		config:      newConfigState(),
		certificate: newServingCertificate(),
		pods:        newPodCounts(),
	}
	for _, result := range []string{reloadOK, reloadFailed} {
		m.reloads.WithLabelValues(result)
	}
	for _, what := range []string{droppedBody, droppedConnection} {
		m.dropped.WithLabelValues(what)
	}
	for _, reason := range inject.Reasons() {
		m.requests.WithLabelValues(string(verdictOf(reason)), string(reason))
	}
	for _, reason := range failures() {
		m.requests.WithLabelValues(string(verdictFailed), reason)
	}
	return m
}

func verdictOf(reason inject.Reason) verdict {
	switch {
	case reason == inject.ReasonInjected:
		return verdictInjected
	case reason.Denies():
		return verdictDenied
	default:
		return verdictSkipped
	}
}

func (m *Metrics) observe(v verdict, reason string, took time.Duration, patchSize int) {
	m.requests.WithLabelValues(string(v), reason).Inc()
	m.duration.Observe(took.Seconds())
	if v == verdictInjected {
		m.patchSize.Observe(float64(patchSize))
	}
}

// Values of shunt_webhook_dropped_total's label.
const (
	droppedBody       = "body"
	droppedConnection = "connection"
)

func (m *Metrics) drop(what string) { m.dropped.WithLabelValues(what).Inc() }

// reloaded counts a reading of the configuration, with its time.
func (m *Metrics) reloaded(ok bool, now time.Time) {
	if ok {
		m.reloads.WithLabelValues(reloadOK).Inc()
	} else {
		m.reloads.WithLabelValues(reloadFailed).Inc()
	}
	m.config.read(ok, now)
}

func (m *Metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.duration, m.patchSize, m.dropped, m.reloads, m.config, m.certificate, m.pods}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(descs chan<- *prometheus.Desc) {
	for _, c := range m.collectors() {
		c.Describe(descs)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(values chan<- prometheus.Metric) {
	for _, c := range m.collectors() {
		c.Collect(values)
	}
}
