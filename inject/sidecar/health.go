package sidecar

import (
	"cmp"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/annotation"
)

// withHealth returns the sidecar with the pod's health port and readiness probe.
func withHealth(req annotation.Request, c corev1.Container) corev1.Container {
	if port := req.HealthPort(); port != interception.HealthPort {
		moveHealth(&c, port)
	}
	if req.Health.NoReadiness {
		c.ReadinessProbe = nil
	}
	if c.ReadinessProbe != nil && req.Readiness != (annotation.Readiness{}) {
		c.ReadinessProbe = c.ReadinessProbe.DeepCopy()
		c.ReadinessProbe.InitialDelaySeconds = cmp.Or(req.Readiness.InitialDelay, c.ReadinessProbe.InitialDelaySeconds)
		c.ReadinessProbe.PeriodSeconds = cmp.Or(req.Readiness.Period, c.ReadinessProbe.PeriodSeconds)
		c.ReadinessProbe.FailureThreshold = cmp.Or(req.Readiness.Failures, c.ReadinessProbe.FailureThreshold)
	}
	return c
}

// moveHealth replaces the health port everywhere in a sidecar. It copies what the
// container shares with others.
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

// healthProbe returns a probe of the health port, which is not intercepted.
func healthProbe(periodSeconds, failureThreshold int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Path: envoy.HealthPath, Port: intstr.FromInt32(int32(interception.HealthPort)), Scheme: corev1.URISchemeHTTP,
		}},
		PeriodSeconds:    periodSeconds,
		TimeoutSeconds:   3,
		SuccessThreshold: 1,
		FailureThreshold: failureThreshold,
	}
}

// startupProbe returns the probe that has to succeed before the pod's own
// containers start. The proxy has so many seconds.
func startupProbe(seconds int32) *corev1.Probe { return healthProbe(1, seconds) }
