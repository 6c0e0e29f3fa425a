package inject

import (
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// DNSCapture says which DNS queries of a pod go through its proxy.
type DNSCapture string

// The values of DNSCapture.
const (
	DNSCaptureNone      DNSCapture = "none"
	DNSCaptureResolvers DNSCapture = "resolvers" // those to the pod's resolvers
	DNSCaptureAll       DNSCapture = "all"       // those to any server
)

// ProtocolDetection says whether Envoy looks at what a client sends first.
type ProtocolDetection string

// The values of ProtocolDetection.
const (
	ProtocolDetectionAuto ProtocolDetection = "auto" // HTTP and TLS are told from other protocols
	ProtocolDetectionNone ProtocolDetection = "none" // every connection is just TCP
)

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
	replace(&cfg.DNSCapture, r.dns)
	replace(&cfg.ProtocolDetection, r.detection)
	replace(&cfg.LogLevel, r.logLevel)
	replace(&cfg.ComponentLogLevel, r.componentLogLevel)
	replace(&cfg.Concurrency, r.concurrency)
	if r.config.hold != nil {
		cfg.HoldApplicationUntilProxyStarts = *r.config.hold
	}
	if r.dropInvalid != nil {
		cfg.DropInvalid = *r.dropInvalid
	}
	if r.mode == interception.ModeNone { // nothing is intercepted, DNS neither
		cfg.DNSCapture = DNSCaptureNone
	}
	if r.serverFirst != nil {
		cfg.ServerFirstPorts = interception.NewPortRanges(slices.Concat(mustParsePorts(cfg.ServerFirstPorts), r.serverFirst)...).String()
	}
	if r.from.ofNamespace(r.drainKey) {
		replace(&cfg.DrainDuration.Duration, r.drain)
	}
	cfg.DrainDuration.Duration = min(cfg.DrainDuration.Duration, drainWithin(pod))
	if !r.from.ofNamespace(r.drainKey) {
		replace(&cfg.DrainDuration.Duration, r.drain)
	}
	return cfg
}

// replace puts a value in the place of another, unless it is the zero value.
func replace[T comparable](place *T, value T) {
	var absent T
	if value != absent {
		*place = value
	}
}

// mustParsePorts reads ports that Validate has passed.
func mustParsePorts(text string) interception.PortRanges {
	ports, err := interception.ParsePortRanges(text)
	if err != nil {
		panic("ports from a valid configuration: " + err.Error())
	}
	return ports
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
