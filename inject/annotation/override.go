package annotation

import (
	"cmp"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/config"
)

// Override returns the configuration that holds for the pod: what the
// annotations of the pod and its namespace set overrides it.
func (r *Request) Override(cfg config.Config, pod *corev1.Pod) config.Config {
	switch {
	case r.NativeSidecar == nil || cfg.NativeSidecar == config.NativeSidecarUnsupported:
	case *r.NativeSidecar:
		cfg.NativeSidecar = config.NativeSidecarEnabled
	default:
		cfg.NativeSidecar = config.NativeSidecarDisabled
	}
	cfg.DNSCapture = cmp.Or(r.DNSCapture, cfg.DNSCapture)
	if r.Mode == interception.ModeNone { // nothing is intercepted, DNS neither
		cfg.DNSCapture = config.DNSCaptureNone
	}
	r.overrideDetection(&cfg)
	cfg.AccessLog = cmp.Or(r.accessLog, cfg.AccessLog)
	cfg.LogLevel = cmp.Or(r.logLevel, cfg.LogLevel)
	cfg.ComponentLogLevel = cmp.Or(r.ComponentLogLevel, cfg.ComponentLogLevel)
	if r.ProxyConfig.concurrency != nil {
		cfg.Concurrency = *r.ProxyConfig.concurrency
	}
	if r.ProxyConfig.hold != nil {
		cfg.HoldApplicationUntilProxyStarts = *r.ProxyConfig.hold
	}
	// The namespace's value suits most pods and gives way to a shorter grace
	// period, as the configuration's does. The pod's own is denied instead.
	drain := cmp.Or(r.ProxyConfig.Drain, cfg.DrainDuration.Duration)
	if r.ProxyConfig.Drain == 0 || r.Source.FromNamespace(ProxyConfigKey) {
		drain = min(drain, max(GracePeriod(pod)-afterDrain, time.Second))
	}
	cfg.DrainDuration.Duration = drain
	return cfg
}

// overrideDetection has ports for HTTP ask for ProtocolDetectionDeclared, unless
// the same place, or one nearer to the pod, says that nothing is looked at.
func (r *Request) overrideDetection(cfg *config.Config) {
	cfg.ProtocolDetection = cmp.Or(r.ProtocolDetection, cfg.ProtocolDetection)
	if r.httpPorts == nil {
		return
	}
	cfg.HTTPPorts = r.httpPorts.String()
	podSaysNone := r.ProtocolDetection == config.ProtocolDetectionNone && !r.Source.FromNamespace(ProtocolDetectionKey)
	if cfg.ProtocolDetection == config.ProtocolDetectionNone && !podSaysNone {
		cfg.ProtocolDetection = config.ProtocolDetectionDeclared
	}
}

// afterDrain is what a drain leaves of a pod's grace period for the proxy to
// end in.
const afterDrain = 5 * time.Second

// GracePeriod returns the time between a pod's order to end and its killing.
func GracePeriod(pod *corev1.Pod) time.Duration {
	seconds := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if own := pod.Spec.TerminationGracePeriodSeconds; own != nil {
		seconds = *own
	}
	return time.Duration(seconds) * time.Second
}
