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

// takenHealthPorts are the proxy's ports for something else than its health.
var takenHealthPorts = []uint16{
	interception.AdminPort, interception.DefaultOutboundPort, interception.DefaultInboundPort,
	interception.DefaultDNSPort, interception.MetricsPort,
}

// Health is where the proxy answers for its health, as a pod wants it.
type Health struct {
	port        uint16 // 0: what it is without the pod's word
	NoReadiness bool   // no readiness probe
}

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

// HealthPort is the port that the pod's proxy answers for its health on.
func (r Request) HealthPort() uint16 {
	if r.Health.port != 0 {
		return r.Health.port
	}
	return interception.HealthPort
}

// Readiness is how kubelet asks whether the proxy is ready, as a pod wants it;
// 0 what it says nothing of. A delay of 0 is what there is without its word.
type Readiness struct{ InitialDelay, Period, Failures int32 }

// wholeFrom returns a parser of whole numbers.
func wholeFrom(least int64, accepted string) func(string) (int32, error) {
	return func(text string) (int32, error) {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil || int64(n) < least || n > math.MaxInt32 {
			return 0, &interception.ValueError{Value: text, Accepted: accepted}
		}
		return int32(n), nil
	}
}
