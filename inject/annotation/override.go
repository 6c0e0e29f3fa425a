package annotation

import (
	"cmp"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/config"
)

// overrideNativeSidecar is the order that holds for a pod that says so or does not.
func (r Request) overrideNativeSidecar(cfg *config.Config) {
	switch {
	case r.NativeSidecar == nil || cfg.NativeSidecar == config.NativeSidecarUnsupported:
	case *r.NativeSidecar:
		cfg.NativeSidecar = config.NativeSidecarEnabled
	default:
		cfg.NativeSidecar = config.NativeSidecarDisabled
	}
}

// Override is the configuration with what the annotations of the pod and its
// namespace say in place of what it says: the one that holds for the pod.
func (r Request) Override(cfg config.Config, pod *corev1.Pod) config.Config {
	r.overrideNativeSidecar(&cfg)
	cfg.DNSCapture = cmp.Or(r.DNSCapture, cfg.DNSCapture)
	cfg.AccessLog = cmp.Or(r.accessLog, cfg.AccessLog)
	r.overrideDetection(&cfg)
	cfg.LogLevel = cmp.Or(r.logLevel, cfg.LogLevel)
	cfg.ComponentLogLevel = cmp.Or(r.ComponentLogLevel, cfg.ComponentLogLevel)
	if r.concurrency != nil {
		cfg.Concurrency = *r.concurrency
	}
	if r.ProxyConfig.hold != nil {
		cfg.HoldApplicationUntilProxyStarts = *r.ProxyConfig.hold
	}
	if r.dropInvalid != nil {
		cfg.DropInvalid = *r.dropInvalid
	}
	if r.Mode == interception.ModeNone { // nothing is intercepted, DNS neither
		cfg.DNSCapture = config.DNSCaptureNone
	}
	if r.Source.FromNamespace(r.DrainKey) {
		cfg.DrainDuration.Duration = cmp.Or(r.DrainDuration, cfg.DrainDuration.Duration)
	}
	cfg.DrainDuration.Duration = min(cfg.DrainDuration.Duration, drainWithin(pod))
	if !r.Source.FromNamespace(r.DrainKey) {
		cfg.DrainDuration.Duration = cmp.Or(r.DrainDuration, cfg.DrainDuration.Duration)
	}
	return cfg
}

// overrideDetection has ports for HTTP ask for ProtocolDetectionDeclared, unless
// the same place, or one nearer to the pod, says that nothing is looked at.
func (r Request) overrideDetection(cfg *config.Config) {
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

// drainWithin is the longest drain that suits the pod, of those that it does
// not ask for itself.
func drainWithin(pod *corev1.Pod) time.Duration { return max(GracePeriod(pod)-afterDrain, time.Second) }

// GracePeriod is the time between a pod's order to end and its killing.
func GracePeriod(pod *corev1.Pod) time.Duration {
	seconds := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if own := pod.Spec.TerminationGracePeriodSeconds; own != nil {
		seconds = *own
	}
	return time.Duration(seconds) * time.Second
}
