package sidecar

import (
	"cmp"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// Hold returns the proxy as a regular sidecar container that the others wait for:
// kubelet starts a container only after the postStart hook of the one before has
// ended. It does not change its argument.
func Hold(proxy corev1.Container, cfg config.Config) corev1.Container {
	command := holdCommand(proxy)
	if !cfg.HoldApplicationUntilProxyStarts || command == nil {
		return proxy
	}
	hooks := corev1.Lifecycle{}
	if proxy.Lifecycle != nil {
		hooks = *proxy.Lifecycle
	}
	if hooks.PostStart == nil {
		hooks.PostStart = &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: command}}
	}
	proxy.Lifecycle = &hooks
	return proxy
}

// holdCommand returns a command that waits until the proxy answers, as long as
// kubelet would wait for its startup probe; nil for a probe that shunt-init
// cannot do.
func holdCommand(proxy corev1.Container) []string {
	probe := proxy.StartupProbe
	if probe == nil {
		return nil
	}
	var port uint16
	command := []string{podplan.ProbeProgram, "wait"}
	switch {
	case probe.HTTPGet != nil && probe.HTTPGet.Host == "" && probe.HTTPGet.Scheme != corev1.URISchemeHTTPS:
		port = podplan.PortNumber(&proxy, probe.HTTPGet.Port)
		command = append(command, "--path", probe.HTTPGet.Path)
	case probe.TCPSocket != nil && probe.TCPSocket.Host == "":
		port = podplan.PortNumber(&proxy, probe.TCPSocket.Port)
	}
	if port == 0 {
		return nil
	}
	most := time.Duration(cmp.Or(probe.PeriodSeconds, 10)) * time.Duration(cmp.Or(probe.FailureThreshold, 3)) * time.Second
	return append(command, "--port", strconv.Itoa(int(port)), "--duration", most.String())
}
