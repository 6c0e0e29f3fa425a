package sidecar

import (
	"cmp"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// Hold returns the proxy with a postStart hook that waits until it answers: kubelet
// starts the next container only after the hook of the one before has ended. It does
// not change its argument.
//
//	proxy                               the others wait by
//	Envoy, native sidecar               the hook, instead of the startup probe
//	custom, native sidecar              its startup probe
//	regular, not held                   nothing
//	Envoy, regular, held                the hook, instead of the startup probe
//	custom, regular, held               the hook, beside its startup probe
//	with a postStart hook of its own    that hook, and its startup probe
//
// kubelet probes once a second, counted from the pod's creation, and acts on a
// startup probe when it next lists all containers, which it also does once a second.
// A container that has started and whose hook has ended, it sees at once. And a probe
// that comes too early fails, and leaves a Warning on a healthy pod.
func Hold(proxy corev1.Container, cfg config.Config) corev1.Container {
	custom := cfg.Sidecar.Type == config.SidecarCustom
	if cfg.Native() && custom || !cfg.Native() && !cfg.HoldApplicationUntilProxyStarts {
		return proxy
	}
	hooks := corev1.Lifecycle{}
	if proxy.Lifecycle != nil {
		hooks = *proxy.Lifecycle
	}
	command := holdCommand(proxy)
	if hooks.PostStart != nil || command == nil {
		return proxy
	}
	hooks.PostStart = &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: command}}
	proxy.Lifecycle = &hooks
	if !custom {
		proxy.StartupProbe = nil
	}
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
