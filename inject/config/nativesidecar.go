package config

import (
	"fmt"

	"k8s.io/apimachinery/pkg/util/version"
)

// Drains reports whether the end of a pod waits for what is under way through
// Envoy. A native sidecar is stopped last, so that the bytes that it carries
// need nobody to wait for them; but a client of HTTP that keeps its connection
// open is to be told to go elsewhere. A regular container is stopped together
// with the application.
func (c Config) Drains() bool { return !c.Native() || c.ProtocolDetection != ProtocolDetectionNone }

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
	// NativeSidecarUnsupported is NativeSidecarDisabled where no pod may ask
	// for another order. No file says so, but ForAPIServer.
	NativeSidecarUnsupported NativeSidecar = "unsupported"
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
		c.NativeSidecar = NativeSidecarUnsupported
	case c.NativeSidecar == NativeSidecarAuto:
		c.NativeSidecar = NativeSidecarEnabled
	}
	return c
}

// Native reports whether the proxy is a native sidecar.
func (c Config) Native() bool {
	return c.NativeSidecar == NativeSidecarAuto || c.NativeSidecar == NativeSidecarEnabled
}
