package inject

import (
	"cmp"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// DNSCapture says which DNS queries of a pod go through its proxy.
type DNSCapture string

// The values of DNSCapture.
const (
	DNSCaptureNone      DNSCapture = "none"
	DNSCaptureResolvers DNSCapture = "resolvers" // those to the pod's resolvers
	DNSCaptureAll       DNSCapture = "all"       // those to any server
)

// ProtocolDetection says on which ports Envoy looks for HTTP and TLS in what a
// client sends first. On all others it carries bytes and reads none of them.
type ProtocolDetection string

// The values of ProtocolDetection.
const (
	ProtocolDetectionNone ProtocolDetection = "none"
	// ProtocolDetectionDeclared looks on the ports that the pod's containers
	// name as HTTP, HTTP/2, gRPC or TLS, and on HTTPPorts.
	ProtocolDetectionDeclared ProtocolDetection = "declared"
	// ProtocolDetectionAll looks on all but envoy.ServerFirstPorts.
	ProtocolDetectionAll ProtocolDetection = "all"
)

// httpPortNames are the protocols for which Istio's names of ports stand,
// "name" or "name-suffix", that Envoy tells apart on such a port.
var httpPortNames = []string{"http", "http2", "grpc", "grpc-web", "https", "tls"}

// declaresHTTP reports whether the name of a port says that it is for one of
// httpPortNames.
func declaresHTTP(name string) bool {
	return slices.ContainsFunc(httpPortNames, func(protocol string) bool {
		return name == protocol || strings.HasPrefix(name, protocol+"-")
	})
}

// envoySettings are what the pod's Envoy is told. The configuration is the one
// that holds for the pod.
func envoySettings(pod *corev1.Pod, req request, cfg Config, memoryLimit int64) envoy.Settings {
	settings := envoy.Settings{
		HealthPort: req.health(),
		HTTP: envoy.HTTPLimits{
			MaxHeaderKB: uint32(cfg.HTTPLimits.MaxHeaderKB), MaxStreams: uint32(cfg.HTTPLimits.MaxStreams),
			HeaderSeconds: seconds(cfg.HTTPLimits.HeaderTimeout),
		},
		AccessLog: cfg.AccessLog, AccessLogQueries: cfg.AccessLogQueries,
		Keepalive: envoy.Keepalive{
			TimeSeconds: seconds(cfg.TCPKeepalive.Time), IntervalSeconds: seconds(cfg.TCPKeepalive.Interval),
			Probes: uint32(cfg.TCPKeepalive.Probes),
		},
		MemoryLimit: memoryLimit,
	}
	switch cfg.ProtocolDetection {
	case ProtocolDetectionAll:
		settings.InboundHTTPPorts, settings.OutboundHTTPPorts = envoy.AllPorts, envoy.AllPorts
	case ProtocolDetectionDeclared:
		asked := cfg.httpPortRanges()
		settings.InboundHTTPPorts = interception.NewPortRanges(slices.Concat(asked, declaredPorts(pod))...).String()
		settings.OutboundHTTPPorts = asked.String()
	}
	return settings
}

// declaredPorts are those of the pod that its containers declare for HTTP.
func declaredPorts(pod *corev1.Pod) interception.PortRanges {
	var ports interception.PortRanges
	for _, c := range podplan.AllContainers(pod) {
		for _, p := range c.Ports {
			valid := 0 < p.ContainerPort && p.ContainerPort <= podplan.MaxPort
			if valid && podplan.Protocol(p) == corev1.ProtocolTCP && declaresHTTP(p.Name) {
				ports = append(ports, interception.PortRange{First: uint16(p.ContainerPort), Last: uint16(p.ContainerPort)})
			}
		}
	}
	return ports
}

// seconds are those of a time that Validate has passed, at least one of them
// unless it is 0.
func seconds(d metav1.Duration) uint32 { return uint32(math.Ceil(d.Seconds())) }

// word returns a parser of one of a few words.
func word[T ~string](accepted ...T) func(string) (T, error) {
	return func(text string) (T, error) {
		if slices.Contains(accepted, T(text)) {
			return T(text), nil
		}
		words := make([]string, len(accepted))
		for i, w := range accepted {
			words[i] = string(w)
		}
		return "", &interception.ValueError{Value: text, Accepted: strings.Join(words, ", ")}
	}
}

const acceptedDuration = "a time above 0 such as 25s or 1m30s"

func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, &interception.ValueError{Value: text, Accepted: acceptedDuration}
	}
	return d, nil
}

// logLevels are Envoy's.
var logLevels = []string{"trace", "debug", "info", "warning", "warn", "error", "critical", "off"}

var acceptedLogLevels = strings.Join(logLevels, ", ")

// component is the form of the name of a part of Envoy that logs. Which ones
// there are depends on its version.
var component = regexp.MustCompile(`^[a-z0-9_]+$`)

const acceptedComponentLogLevels = "names of Envoy's components with a level each, such as http:debug,connection:trace"

// parseComponentLogLevels checks pairs of a component and its log level, which
// Envoy takes as they are.
func parseComponentLogLevels(text string) (string, error) {
	for pair := range strings.SplitSeq(text, ",") {
		name, level, _ := strings.Cut(pair, ":")
		if !component.MatchString(name) || !slices.Contains(logLevels, level) {
			return "", &interception.ValueError{Value: pair, Accepted: acceptedComponentLogLevels}
		}
	}
	return text, nil
}

// over is the configuration with what the annotations of the pod and its
// namespace say in place of what it says: the one that holds for the pod.
func (r request) over(cfg Config, pod *corev1.Pod) Config {
	r.overOrder(&cfg)
	cfg.DNSCapture = cmp.Or(r.dns, cfg.DNSCapture)
	cfg.AccessLog = cmp.Or(r.accessLog, cfg.AccessLog)
	r.overDetection(&cfg)
	cfg.LogLevel = cmp.Or(r.logLevel, cfg.LogLevel)
	cfg.ComponentLogLevel = cmp.Or(r.componentLogLevel, cfg.ComponentLogLevel)
	if r.concurrency != nil {
		cfg.Concurrency = *r.concurrency
	}
	if r.config.hold != nil {
		cfg.HoldApplicationUntilProxyStarts = *r.config.hold
	}
	if r.dropInvalid != nil {
		cfg.DropInvalid = *r.dropInvalid
	}
	if r.mode == interception.ModeNone { // nothing is intercepted, DNS neither
		cfg.DNSCapture = DNSCaptureNone
	}
	if r.from.ofNamespace(r.drainKey) {
		cfg.DrainDuration.Duration = cmp.Or(r.drain, cfg.DrainDuration.Duration)
	}
	cfg.DrainDuration.Duration = min(cfg.DrainDuration.Duration, drainWithin(pod))
	if !r.from.ofNamespace(r.drainKey) {
		cfg.DrainDuration.Duration = cmp.Or(r.drain, cfg.DrainDuration.Duration)
	}
	return cfg
}

// overDetection has ports for HTTP ask for ProtocolDetectionDeclared, unless
// the same place, or one nearer to the pod, says that nothing is looked at.
func (r request) overDetection(cfg *Config) {
	cfg.ProtocolDetection = cmp.Or(r.detection, cfg.ProtocolDetection)
	if r.httpPorts == nil {
		return
	}
	cfg.HTTPPorts = r.httpPorts.String()
	podSaysNone := r.detection == ProtocolDetectionNone && !r.from.ofNamespace(ProtocolDetectionKey)
	if cfg.ProtocolDetection == ProtocolDetectionNone && !podSaysNone {
		cfg.ProtocolDetection = ProtocolDetectionDeclared
	}
}

// afterDrain is what a drain leaves of a pod's grace period for the proxy to
// end in.
const afterDrain = 5 * time.Second

// drainWithin is the longest drain that suits the pod, of those that it does
// not ask for itself.
func drainWithin(pod *corev1.Pod) time.Duration { return max(gracePeriod(pod)-afterDrain, time.Second) }

// gracePeriod is the time between a pod's order to end and its killing.
func gracePeriod(pod *corev1.Pod) time.Duration {
	seconds := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if own := pod.Spec.TerminationGracePeriodSeconds; own != nil {
		seconds = *own
	}
	return time.Duration(seconds) * time.Second
}
