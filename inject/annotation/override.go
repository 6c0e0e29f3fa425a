package annotation

import (
	"cmp"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/config"
)

// Override returns the configuration for the pod: the annotations of the pod and
// its namespace override the cluster-wide one.
func (r *Request) Override(cfg config.Config, pod *corev1.Pod) config.Config {
	switch {
	case r.NativeSidecar == nil || cfg.NativeSidecar == config.NativeSidecarUnsupported:
	case *r.NativeSidecar:
		cfg.NativeSidecar = config.NativeSidecarEnabled
	default:
		cfg.NativeSidecar = config.NativeSidecarDisabled
	}
	cfg.InterceptFrom = cmp.Or(r.InterceptFrom, cfg.InterceptFrom)
	cfg.DNSCapture = cmp.Or(r.DNSCapture, cfg.DNSCapture)
	if r.Mode == interception.ModeNone { // nothing is intercepted, not even DNS
		cfg.DNSCapture = config.DNSCaptureNone
	}
	r.overrideDetection(&cfg)
	if r.Source.Has(ExcludeOutboundIPRangesKey) {
		cfg.ExcludeOutboundIPRanges = r.Spec.OutboundExcludeCIDRs.String()
	}
	cfg.AccessLog = cmp.Or(r.accessLog, cfg.AccessLog)
	cfg.LogLevel = cmp.Or(r.logLevel, cfg.LogLevel)
	cfg.ComponentLogLevel = cmp.Or(r.ComponentLogLevel, cfg.ComponentLogLevel)
	if r.ProxyConfig.concurrency != nil {
		cfg.Concurrency = *r.ProxyConfig.concurrency
	}
	if r.ProxyConfig.hold != nil {
		cfg.HoldApplicationUntilProxyStarts = *r.ProxyConfig.hold
	}
	if r.ProxyConfig.stats != nil {
		cfg.ProxyStatsMatcher = *r.ProxyConfig.stats
	}
	// A short grace period lowers the namespace's value, as it does the
	// configuration's: neither was written for this pod. The pod's own value is
	// denied instead.
	drain := cmp.Or(r.ProxyConfig.Drain, cfg.DrainDuration.Duration)
	if r.ProxyConfig.Drain == 0 || r.Source.FromNamespace(ProxyConfigKey) {
		drain = min(drain, max(GracePeriod(pod)-afterDrain, time.Second))
	}
	cfg.DrainDuration.Duration = drain
	return cfg
}

// overrideDetection turns ProtocolDetectionNone into ProtocolDetectionDeclared
// where an annotation sets ports for HTTP, unless the pod itself sets
// ProtocolDetectionNone. Read has denied both in the same place.
func (r *Request) overrideDetection(cfg *config.Config) {
	cfg.ProtocolDetection = cmp.Or(r.ProtocolDetection, cfg.ProtocolDetection)
	if r.httpPorts == nil {
		return
	}
	cfg.HTTPPorts = r.httpPorts.String()
	podSetsNone := r.ProtocolDetection == config.ProtocolDetectionNone && !r.Source.FromNamespace(ProtocolDetectionKey)
	if cfg.ProtocolDetection == config.ProtocolDetectionNone && !podSetsNone {
		cfg.ProtocolDetection = config.ProtocolDetectionDeclared
	}
}

// afterDrain is the part of a pod's grace period that remains after the drain, for
// the proxy to exit.
const afterDrain = 5 * time.Second

// GracePeriod returns the time from the start of a pod's termination to its
// SIGKILL.
func GracePeriod(pod *corev1.Pod) time.Duration {
	seconds := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if own := pod.Spec.TerminationGracePeriodSeconds; own != nil {
		seconds = *own
	}
	return time.Duration(seconds) * time.Second
}
