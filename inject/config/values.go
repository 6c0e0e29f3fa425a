package config

import (
	"regexp"
	"slices"
	"strings"
	"time"

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

// AcceptedDuration words what ParseDuration takes.
const AcceptedDuration = "a time above 0 such as 25s or 1m30s"

// ParseDuration reads a time above 0.
func ParseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, &interception.ValueError{Value: text, Accepted: AcceptedDuration}
	}
	return d, nil
}

// LogLevels are Envoy's.
var LogLevels = []string{"trace", "debug", "info", "warning", "warn", "error", "critical", "off"}

// AcceptedLogLevels words the LogLevels.
var AcceptedLogLevels = strings.Join(LogLevels, ", ")

// component is the form of the name of a part of Envoy that logs. Which ones
// there are depends on its version.
var component = regexp.MustCompile(`^[a-z0-9_]+$`)

// AcceptedComponentLogLevels words what ParseComponentLogLevels takes.
const AcceptedComponentLogLevels = "names of Envoy's components with a level each, such as http:debug,connection:trace"

// ParseComponentLogLevels checks pairs of a component and its log level, which
// Envoy takes as they are.
func ParseComponentLogLevels(text string) (string, error) {
	for pair := range strings.SplitSeq(text, ",") {
		name, level, _ := strings.Cut(pair, ":")
		if !component.MatchString(name) || !slices.Contains(LogLevels, level) {
			return "", &interception.ValueError{Value: pair, Accepted: AcceptedComponentLogLevels}
		}
	}
	return text, nil
}
