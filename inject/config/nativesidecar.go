package config

import (
	"fmt"

	"k8s.io/apimachinery/pkg/util/version"
)

// Drains reports whether the end of a pod waits for Envoy's open connections and
// requests. A native sidecar stops last, so plain TCP needs no drain. But HTTP
// clients that keep their connections open must be told to close them. A regular
// container stops together with the application.
func (c Config) Drains() bool { return !c.Native() || c.ProtocolDetection != ProtocolDetectionNone }

// NativeSidecar sets the kind of the proxy's container: a native sidecar, which is
// an init container that keeps running (Kubernetes 1.29 or newer), or the first
// regular container.
type NativeSidecar string

// The values of NativeSidecar.
const (
	// NativeSidecarAuto depends on the API server's version. If that is not known,
	// it is the same as NativeSidecarEnabled.
	NativeSidecarAuto     NativeSidecar = "auto"
	NativeSidecarEnabled  NativeSidecar = "enabled"
	NativeSidecarDisabled NativeSidecar = "disabled"
	// NativeSidecarUnsupported is NativeSidecarDisabled without the annotation that
	// overrides it. Only ForAPIServer sets it, never a file.
	NativeSidecarUnsupported NativeSidecar = "unsupported"
)

// nativeSince is the first version of Kubernetes with native sidecars enabled by
// default.
var nativeSince = version.MajorMinor(1, 29)

// KnowsNativeSidecars reports whether an API server of a version such as
// v1.29.3-gke.100 has native sidecars.
func KnowsNativeSidecars(gitVersion string) (bool, error) {
	parsed, err := version.ParseGeneric(gitVersion)
	if err != nil {
		return false, fmt.Errorf("read the API server's version %q: %w", gitVersion, err)
	}
	return parsed.AtLeast(nativeSince), nil
}

// ForAPIServer returns the configuration for an API server with or without native
// sidecars. One without them removes the restartPolicy of an init container, and
// the pod would wait for its end for ever. NativeSidecarEnabled stays: a feature
// gate may have turned them on.
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
