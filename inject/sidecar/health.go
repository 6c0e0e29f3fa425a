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

// withHealth is a sidecar with the health port and the readiness probe that the pod
// wants.
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

// healthProbe asks the proxy whether it is live. Kubelet reaches the port
// without interception.
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

// startupProbe is passed before the pod's own containers start: the proxy may
// take ten minutes for it.
func startupProbe() *corev1.Probe { return healthProbe(1, 600) }
