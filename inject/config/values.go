package config

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// DNSCapture sets which DNS queries of a pod go through its proxy.
type DNSCapture string

// The values of DNSCapture.
const (
	DNSCaptureNone      DNSCapture = "none"
	DNSCaptureResolvers DNSCapture = "resolvers" // those to the pod's resolvers
	DNSCaptureAll       DNSCapture = "all"       // those to any server
)

// InterceptFrom sets who writes the rules of a pod.
type InterceptFrom string

// The values of InterceptFrom.
const (
	InterceptFromPod  InterceptFrom = "pod"  // its init container, as root with NET_ADMIN
	InterceptFromNode InterceptFrom = "node" // the node's agent, shunt-node; the init container only waits for it
)

// ProtocolDetection sets the ports on which Envoy detects HTTP and TLS in a client's
// first bytes. On all others it forwards bytes without reading them.
type ProtocolDetection string

// The values of ProtocolDetection.
const (
	ProtocolDetectionNone ProtocolDetection = "none"
	// ProtocolDetectionDeclared is for the ports that the pod's containers name as
	// HTTP, HTTP/2, gRPC or TLS, and for HTTPPorts.
	ProtocolDetectionDeclared ProtocolDetection = "declared"
	// ProtocolDetectionAll is for all ports but envoy.ServerFirstPorts.
	ProtocolDetectionAll ProtocolDetection = "all"
)

// AcceptedDuration describes what ParseDuration accepts.
const AcceptedDuration = "a time above 0 such as 25s or 1m30s"

// ParseDuration reads a time above 0.
func ParseDuration(text string) (time.Duration, error) {
	duration, err := time.ParseDuration(text)
	if err != nil || duration <= 0 {
		return 0, &interception.ValueError{Value: text, Accepted: AcceptedDuration}
	}
	return duration, nil
}

// LogLevels are Envoy's log levels.
var LogLevels = []string{"trace", "debug", "info", "warning", "warn", "error", "critical", "off"}

// AcceptedLogLevels lists the LogLevels for messages.
var AcceptedLogLevels = strings.Join(LogLevels, ", ")

// component matches the name of one of Envoy's logging components. Which ones exist
// depends on its version.
var component = regexp.MustCompile(`^[a-z0-9_]+$`)

// AcceptedComponentLogLevels describes what ParseComponentLogLevels accepts.
const AcceptedComponentLogLevels = "names of Envoy's components with a level each, such as http:debug,connection:trace"

// ParseComponentLogLevels checks pairs of a component and its log level, and returns
// the text for Envoy's command line as it is.
func ParseComponentLogLevels(text string) (string, error) {
	for pair := range strings.SplitSeq(text, ",") {
		name, level, _ := strings.Cut(pair, ":")
		if !component.MatchString(name) || !slices.Contains(LogLevels, level) {
			return "", &interception.ValueError{Value: pair, Accepted: AcceptedComponentLogLevels}
		}
	}
	return text, nil
}
