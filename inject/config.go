package inject

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// Policy says what happens to a pod that neither its namespace nor the pod
// itself says anything about.
type Policy string

// The values of Policy.
const (
	PolicyEnabled  Policy = "enabled"  // inject it
	PolicyDisabled Policy = "disabled" // leave it alone
)

// Config is the injector's own settings: what holds for every pod, where an
// annotation holds for one. Start from DefaultConfig; what Validate refuses
// must not be used.
type Config struct {
	// InitImage is the image of the init container shunt-init.
	InitImage string `json:"initImage"`
	// ProxyImage is the image of the sidecar shunt-proxy where that is Envoy;
	// a program envoy must be on its PATH.
	ProxyImage string `json:"proxyImage"`
	// PullPolicy of both images: Always, IfNotPresent or Never.
	PullPolicy corev1.PullPolicy `json:"pullPolicy"`

	// Backend is the kernel interface that shunt-init writes to: auto, nft or
	// legacy. Only legacy gives the init container NET_RAW and a writable
	// /run. With auto, shunt-init takes nft unless the pod's new network
	// namespace already holds legacy rules, which a CNI plug-in would have
	// had to write; it then says so and fails, and legacy is to be set here.
	Backend interception.Backend `json:"backend"`
	// IPFamilies are those that the proxy listens on: IPv4, IPv6 or both.
	// Connections of a family that is left out are refused, never let past
	// the proxy. Leave IPv6 out for nodes whose kernel has none at all
	// (ipv6.disable=1), where the proxy could not start with it.
	IPFamilies []corev1.IPFamily `json:"ipFamilies"`

	// ProxyUID and ProxyGID are the ids that tell the proxy's own connections
	// from the pod's, 1 to 2147483647. No container of a pod may have them.
	ProxyUID int64 `json:"proxyUID"`
	ProxyGID int64 `json:"proxyGID"`

	// InitResources and ProxyResources are the requests and limits of the two
	// containers.
	InitResources  corev1.ResourceRequirements `json:"initResources"`
	ProxyResources corev1.ResourceRequirements `json:"proxyResources"`
	// Concurrency is the number of Envoy's worker threads, 1 to 1024.
	Concurrency int32 `json:"concurrency"`
	// LogLevel of Envoy: trace, debug, info, warning, error, critical or off.
	LogLevel string `json:"logLevel"`

	// DefaultPolicy is for pods that nothing else decides about.
	DefaultPolicy Policy `json:"defaultPolicy"`
	// Revision names this injector in the status annotation; a DNS label.
	Revision string `json:"revision"`

	// Sidecar says which proxy it is.
	Sidecar Sidecar `json:"sidecar"`
}

// SidecarType says who makes the sidecar's container.
type SidecarType string

// The values of SidecarType.
const (
	SidecarEnvoy  SidecarType = "envoy"  // Shunt: Envoy, and its bootstrap
	SidecarCustom SidecarType = "custom" // the user: Sidecar.Container
)

// Sidecar is the proxy that pods get.
type Sidecar struct {
	Type SidecarType `json:"type"`
	// Container, with SidecarCustom only, is merged over what Shunt sets for
	// any proxy, by strategic merge. An image it must have; what the rules
	// rely on it must leave as it is.
	Container *corev1.Container `json:"container,omitempty"`
	// Volumes, with SidecarCustom only, are those that Container mounts.
	Volumes []corev1.Volume `json:"volumes,omitempty"`
}

// DefaultConfig returns the settings of an injector that was told nothing.
func DefaultConfig() Config {
	return Config{
		InitImage:      "shunt-init",
		ProxyImage:     "envoyproxy/envoy:v1.40.0",
		PullPolicy:     corev1.PullIfNotPresent,
		Backend:        interception.BackendAuto,
		IPFamilies:     []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol},
		ProxyUID:       int64(interception.DefaultProxyUID),
		ProxyGID:       int64(interception.DefaultProxyGID),
		InitResources:  resources("10m", "16Mi", "1", "64Mi"),
		ProxyResources: resources("100m", "128Mi", "2", "1Gi"),
		Concurrency:    2,
		LogLevel:       "warning",
		DefaultPolicy:  PolicyDisabled,
		Revision:       "default",
		Sidecar:        Sidecar{Type: SidecarEnvoy},
	}
}

// resources takes requests and limits. The defaults of the sidecar are
// Istio's. Those of the init container are below them, because a pod counts
// the greater of an init container and all that runs later, never the sum:
// its limit of one CPU costs nothing, and spares the pod a throttled start.
func resources(requestCPU, requestMemory, limitCPU, limitMemory string) corev1.ResourceRequirements {
	list := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse(cpu),
			corev1.ResourceMemory: resource.MustParse(memory),
		}
	}
	return corev1.ResourceRequirements{
		Requests: list(requestCPU, requestMemory),
		Limits:   list(limitCPU, limitMemory),
	}
}
