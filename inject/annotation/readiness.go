package annotation

import (
	"math"
	"slices"
	"strconv"

	"github.com/shunt-dev/shunt/initimage/interception"
)

const (
	acceptedSeconds  = "a number of seconds such as 0 or 15"
	acceptedPeriod   = "a number of seconds from 1"
	acceptedFailures = "a number of failures from 1"
	acceptedHealth   = "0 for no readiness probe, or a port from 1 to 65535 that is none of the proxy's others: " +
		"15000, 15001, 15006, 15053, 15090"
)

// takenHealthPorts are the proxy's other ports.
var takenHealthPorts = []uint16{
	interception.AdminPort, interception.DefaultOutboundPort, interception.DefaultInboundPort,
	interception.DefaultDNSPort, interception.MetricsPort,
}

// Health holds what HealthPortKey sets.
type Health struct {
	port        uint16 // 0 means the default, interception.HealthPort
	NoReadiness bool   // the proxy gets no readiness probe
}

// parseHealthPort reads a port; 0 omits the readiness probe.
func parseHealthPort(text string) (Health, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	port := uint16(n)
	switch {
	case err != nil:
	case slices.Contains(takenHealthPorts, port):
		return Health{}, &interception.ValueError{
			Value: text, Reason: "the proxy listens on it for something else", Accepted: acceptedHealth,
		}
	case port == 0:
		return Health{NoReadiness: true}, nil
	default:
		return Health{port: port}, nil
	}
	return Health{}, &interception.ValueError{Value: text, Accepted: acceptedHealth}
}

// HealthPort returns the port of the proxy's health checks.
func (r Request) HealthPort() uint16 {
	if r.Health.port != 0 {
		return r.Health.port
	}
	return interception.HealthPort
}

// Readiness holds what annotations set of the proxy's readiness probe, times in
// seconds. 0 means not set; for the delay, 0 is also the default.
type Readiness struct{ InitialDelay, Period, Failures int32 }

// wholeFrom returns a parser of whole numbers that are not below the least.
func wholeFrom(least int64, accepted string) func(string) (int32, error) {
	return func(text string) (int32, error) {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil || int64(n) < least || n > math.MaxInt32 {
			return 0, &interception.ValueError{Value: text, Accepted: accepted}
		}
		return int32(n), nil
	}
}
