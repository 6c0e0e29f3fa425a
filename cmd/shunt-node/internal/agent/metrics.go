//go:build linux

package agent

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shunt-dev/shunt/initimage/kernel"
)

// Values of the labels of shunt_node_setups_total and shunt_node_comparisons_total.
const (
	resultDone    = "done"
	resultFailed  = "failed"
	resultRefused = "refused"

	comparedSame    = "same"
	comparedChanged = "changed"
	comparedFailed  = "failed"
)

// Metrics counts what an agent does. docs/node.md describes each metric.
type Metrics struct {
	registry    prometheus.Registerer
	connected   atomic.Bool
	setUps      *prometheus.CounterVec
	start       prometheus.Histogram
	comparisons *prometheus.CounterVec
	drift       *prometheus.CounterVec
}

// NewMetrics registers the metrics, each result from the start at 0: a rate needs a
// value to rise from.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		registry: registry,
		setUps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shunt_node_setups_total",
			Help: "Pods whose network was set up, by when (start, late, repair) and by result (done, failed, refused).",
		}, []string{"when", "result"}),
		start: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shunt_node_sandbox_duration_seconds",
			Help: "Time that a sandbox waited for its rules.",
			// Up to 2 s, after which the runtime does not wait.
			Buckets: []float64{.0025, .005, .01, .025, .05, .1, .25, .5, 1, 2},
		}),
		comparisons: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shunt_node_comparisons_total",
			Help: "Comparisons of a pod's rules with what they should be, by result (same, changed, failed).",
		}, []string{"result"}),
		drift: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shunt_node_drift_total",
			Help: "Comparisons that found a difference, by what differs. One can have several reasons.",
		}, []string{"reason"}),
	}
	for _, cause := range kernel.Causes() {
		m.drift.WithLabelValues(string(cause))
	}
	for _, when := range []string{atStart, late, repair} {
		for _, result := range []string{resultDone, resultFailed, resultRefused} {
			m.setUps.WithLabelValues(when, result)
		}
	}
	for _, result := range []string{comparedSame, comparedChanged, comparedFailed} {
		m.comparisons.WithLabelValues(result)
	}
	registry.MustRegister(m.setUps, m.start, m.comparisons, m.drift, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "shunt_node_connected", Help: "1 while the container runtime has the agent as its plugin, 0 otherwise.",
	}, func() float64 {
		if m.connected.Load() {
			return 1
		}
		return 0
	}))
	return m
}

// pods adds the number of pods that the agent watches.
func (m *Metrics) pods(count func() int) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "shunt_node_pods", Help: "Pods of this node with rules of the agent.",
	}, func() float64 { return float64(count()) }))
}

func (m *Metrics) setUp(when, result string)        { m.setUps.WithLabelValues(when, result).Inc() }
func (m *Metrics) tookStart(duration time.Duration) { m.start.Observe(duration.Seconds()) }
func (m *Metrics) compared(result string)           { m.comparisons.WithLabelValues(result).Inc() }

func (m *Metrics) drifted(causes []kernel.Cause) {
	for _, cause := range causes {
		m.drift.WithLabelValues(string(cause)).Inc()
	}
}
