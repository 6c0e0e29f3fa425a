package inject

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/podplan"
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

// healthPort is where the proxy answers for its health, as a pod wants it.
type healthPort struct {
	port    uint16 // 0: what it is without the pod's word
	unasked bool   // no readiness probe
}

func parseHealthPort(text string) (healthPort, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	port := uint16(n)
	switch {
	case err != nil:
	case slices.Contains(takenHealthPorts, port):
		return healthPort{}, &interception.ValueError{
			Value: text, Reason: "the proxy listens on it for something else", Accepted: acceptedHealth,
		}
	case port == 0:
		return healthPort{unasked: true}, nil
	default:
		return healthPort{port: port}, nil
	}
	return healthPort{}, &interception.ValueError{Value: text, Accepted: acceptedHealth}
}

// health is the port that the pod's proxy answers for its health on.
func (r request) health() uint16 {
	if r.healthPort.port != 0 {
		return r.healthPort.port
	}
	return interception.HealthPort
}

// readiness is how kubelet asks whether the proxy is ready, as a pod wants it;
// 0 what it says nothing of. A delay of 0 is what there is without its word.
type readiness struct{ initialDelay, period, failures int32 }

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

// probed is a sidecar with the health port and the readiness probe that the pod
// wants.
func probed(req request, c corev1.Container) corev1.Container {
	if port := req.health(); port != interception.HealthPort {
		moveHealth(&c, port)
	}
	if req.healthPort.unasked {
		c.ReadinessProbe = nil
	}
	if c.ReadinessProbe != nil && req.readiness != (readiness{}) {
		c.ReadinessProbe = c.ReadinessProbe.DeepCopy()
		c.ReadinessProbe.InitialDelaySeconds = cmp.Or(req.readiness.initialDelay, c.ReadinessProbe.InitialDelaySeconds)
		c.ReadinessProbe.PeriodSeconds = cmp.Or(req.readiness.period, c.ReadinessProbe.PeriodSeconds)
		c.ReadinessProbe.FailureThreshold = cmp.Or(req.readiness.failures, c.ReadinessProbe.FailureThreshold)
	}
	return c
}

// moveHealth has all in a sidecar that means the health port mean another one.
// What the container shares with others is not changed.
func moveHealth(c *corev1.Container, to uint16) {
	from := int32(interception.HealthPort)
	for _, probe := range []**corev1.Probe{&c.StartupProbe, &c.ReadinessProbe, &c.LivenessProbe} {
		if *probe == nil {
			continue
		}
		*probe = (*probe).DeepCopy()
		moved := intstr.FromInt32(int32(to))
		switch p := *probe; {
		case p.HTTPGet != nil && p.HTTPGet.Port == intstr.FromInt32(from):
			p.HTTPGet.Port = moved
		case p.TCPSocket != nil && p.TCPSocket.Port == intstr.FromInt32(from):
			p.TCPSocket.Port = moved
		case p.GRPC != nil && p.GRPC.Port == from:
			p.GRPC.Port = int32(to)
		}
	}
	c.Ports, c.Env = slices.Clone(c.Ports), slices.Clone(c.Env)
	for i := range c.Ports {
		if c.Ports[i].ContainerPort == from {
			c.Ports[i].ContainerPort = int32(to)
		}
	}
	for i := range c.Env {
		if c.Env[i].Name == healthVariable {
			c.Env[i].Value = strconv.Itoa(int(to))
		}
	}
}

// readinessWarnings tells of settings of a probe that there is not.
func readinessWarnings(req request, plan *podplan.Plan) []string {
	if req.readiness == (readiness{}) || plan.Containers.Proxy().ReadinessProbe != nil {
		return nil
	}
	var warnings []string
	for _, key := range []string{ReadinessInitialDelayKey, ReadinessPeriodKey, ReadinessFailuresKey} {
		if req.from.has(key) {
			warnings = append(warnings, fmt.Sprintf("%s: the proxy has no readiness probe", req.from.path(key)))
		}
	}
	return warnings
}
