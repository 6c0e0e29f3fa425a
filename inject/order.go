package inject

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/shunt-dev/shunt/inject/podplan"
)

// NativeSidecar says which kind of container the proxy is: a native sidecar,
// which is an init container that goes on running, or in classic order an
// ordinary container, the first one. Kubernetes knows the former from 1.29 on.
type NativeSidecar string

// The values of NativeSidecar.
const (
	// NativeSidecarAuto leaves it to the API server's version. Where nobody has
	// asked that, it is as NativeSidecarEnabled.
	NativeSidecarAuto     NativeSidecar = "auto"
	NativeSidecarEnabled  NativeSidecar = "enabled"
	NativeSidecarDisabled NativeSidecar = "disabled"
	// nativeSidecarUnsupported is NativeSidecarDisabled where no pod may ask
	// for another order. No file says so, but ForAPIServer.
	nativeSidecarUnsupported NativeSidecar = "unsupported"
)

// nativeSince is the first version of Kubernetes whose API server keeps what
// makes an init container a native sidecar, with nothing said about it.
var nativeSince = version.MajorMinor(1, 29)

// KnowsNativeSidecars reports whether an API server of a version such as
// v1.29.3-gke.100 does.
func KnowsNativeSidecars(gitVersion string) (bool, error) {
	parsed, err := version.ParseGeneric(gitVersion)
	if err != nil {
		return false, fmt.Errorf("read the API server's version %q: %w", gitVersion, err)
	}
	return parsed.AtLeast(nativeSince), nil
}

// ForAPIServer is the configuration as it holds in the cluster of an API server
// that knows native sidecars, or does not. One that does not drops what makes an
// init container one, and the pod would wait for it to end for ever. A
// configuration that says enabled has its will: there are feature gates.
func (c Config) ForAPIServer(knowsNativeSidecars bool) Config {
	switch {
	case c.NativeSidecar == NativeSidecarEnabled:
	case !knowsNativeSidecars:
		c.NativeSidecar = nativeSidecarUnsupported
	case c.NativeSidecar == NativeSidecarAuto:
		c.NativeSidecar = NativeSidecarEnabled
	}
	return c
}

// native reports whether the proxy is a native sidecar.
func (c Config) native() bool {
	return c.NativeSidecar == NativeSidecarAuto || c.NativeSidecar == NativeSidecarEnabled
}

// overOrder is the order that holds for a pod that says so or does not.
func (r request) overOrder(cfg *Config) {
	switch {
	case r.native == nil || cfg.NativeSidecar == nativeSidecarUnsupported:
	case *r.native:
		cfg.NativeSidecar = NativeSidecarEnabled
	default:
		cfg.NativeSidecar = NativeSidecarDisabled
	}
}

// held is the proxy as a regular container that the others wait for. Kubelet
// starts them in their order, and the next one not before the hook of the one
// before has ended. The container that is given may be shared, and is not
// changed.
func held(proxy corev1.Container, cfg Config) corev1.Container {
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

// holdCommand waits until the proxy answers, for as long as kubelet would wait
// for its startup probe. There is none where the probe is one that shunt-init
// cannot ask.
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
	most := time.Duration(orElse(probe.PeriodSeconds, 10)) * time.Duration(orElse(probe.FailureThreshold, 3)) * time.Second
	return append(command, "--port", strconv.Itoa(int(port)), "--duration", most.String())
}

// orElse is the value, or what Kubernetes takes for 0.
func orElse(value, otherwise int32) int32 {
	if value == 0 {
		return otherwise
	}
	return value
}

// orderWarnings tells of what a pod does not have in classic order.
func orderWarnings(pod *corev1.Pod, proxy corev1.Container, cfg Config) []string {
	if cfg.native() {
		return nil
	}
	var warnings []string
	if policy := pod.Spec.RestartPolicy; policy == corev1.RestartPolicyNever || policy == corev1.RestartPolicyOnFailure {
		warnings = append(warnings, fmt.Sprintf("%s: %s: the pod will not complete, because the proxy is an ordinary container, "+
			"which goes on running when the others have ended", podplan.SpecPath.Child("restartPolicy"), policy))
	}
	held := proxy.Lifecycle != nil && proxy.Lifecycle.PostStart != nil
	if cfg.HoldApplicationUntilProxyStarts && !held {
		warnings = append(warnings, "the application does not wait for the proxy: that is an ordinary container, and its startup probe "+
			"is not one of an HTTP path or a tcp port")
	}
	return warnings
}
