package sidecar

import (
	"net/url"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// loggedProbes returns the pod's probes that the access log leaves out: httpGet over
// plain HTTP, with kubelet's own User-Agent and Host. Others stay in the log, such
// as gRPC and HTTPS, whose size varies.
func loggedProbes(pod *corev1.Pod, mode interception.Mode, log envoy.AccessLog) []envoy.Probe {
	if mode == interception.ModeNone || log != envoy.AccessLogTraffic {
		return nil
	}
	var probes []envoy.Probe
	podplan.EachContainer(pod, func(c podplan.Placed) bool {
		for _, probe := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
			if probe == nil || probe.HTTPGet == nil {
				continue
			}
			p, told := httpProbe(c.Container, probe.HTTPGet)
			if told && !slices.Contains(probes, p) {
				probes = append(probes, p)
			}
		}
		return len(probes) < envoy.MostProbes
	})
	return probes[:min(len(probes), envoy.MostProbes)]
}

// httpProbe describes kubelet's request; false if it cannot be told.
func httpProbe(c *corev1.Container, get *corev1.HTTPGetAction) (envoy.Probe, bool) {
	target, err := url.Parse(get.Path)
	if err != nil || get.Host != "" || get.Scheme != "" && get.Scheme != corev1.URISchemeHTTP {
		return envoy.Probe{}, false
	}
	path := target.RequestURI()
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	probe := envoy.Probe{Port: podplan.PortNumber(c, get.Port), Path: path}
	lines := []string{"GET " + probe.Path + " HTTP/1.1", "Host: ", "User-Agent: kube-probe/", "Accept: */*", "Connection: close", ""}
	for _, header := range get.HTTPHeaders {
		switch strings.ToLower(header.Name) {
		case "host", "user-agent", "connection", "accept":
			return envoy.Probe{}, false
		}
		lines = append(lines, header.Name+": "+strings.TrimSpace(header.Value))
	}
	for _, line := range lines {
		probe.Bytes += len(line + "\r\n")
	}
	return probe, probe.Validate() == nil
}

// NodeAddress is the variable by which shunt-init knows kubelet's connections.
func NodeAddress() []corev1.EnvVar {
	return []corev1.EnvVar{fromPod(envoy.NodeVariable, "status.hostIP")}
}
