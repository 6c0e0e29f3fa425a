package config

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shunt-dev/shunt/initimage/envoy"
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
	// AllowedProxyImages are the registries, repositories and images that a pod
	// may take its proxy's image from; where there is none, it may not.
	AllowedProxyImages []string `json:"allowedProxyImages"`
	// PullPolicy of both images: Always, IfNotPresent or Never.
	PullPolicy corev1.PullPolicy `json:"pullPolicy"`
	// ImagePullSecrets are added to every pod, for both images.
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`

	// Backend is the kernel interface that shunt-init writes to: auto, nft or
	// legacy. Only legacy gives the init container NET_RAW and a writable
	// /run. With auto, shunt-init takes nft unless the pod's new network
	// namespace already holds legacy rules, which a CNI plug-in would have
	// had to write; it then says so and fails, and legacy is to be set here.
	Backend interception.Backend `json:"backend"`

	// ProxyUID and ProxyGID are the ids that tell the proxy's own connections
	// from the pod's, 1 to 2147483647. No container of a pod may have them, unless AllowProxyIdentityKey is true.
	ProxyUID int64 `json:"proxyUID"`
	ProxyGID int64 `json:"proxyGID"`

	// InitResources and ProxyResources are the requests and limits of the two
	// containers.
	InitResources  corev1.ResourceRequirements `json:"initResources"`
	ProxyResources corev1.ResourceRequirements `json:"proxyResources"`
	// Concurrency is the number of Envoy's worker threads, 1 to 1024.
	Concurrency int32 `json:"concurrency"`
	// LogLevel of Envoy: trace, debug, info, warning, error, critical or off.
	// ComponentLogLevel holds others for parts of it: http:debug,config:info.
	LogLevel          string `json:"logLevel"`
	ComponentLogLevel string `json:"componentLogLevel"`

	// DNSCapture says which DNS queries go through the proxy.
	DNSCapture DNSCapture `json:"dnsCapture"`
	// ProtocolDetection says on which ports Envoy looks for HTTP.
	ProtocolDetection ProtocolDetection `json:"protocolDetection"`
	// HTTPPorts are destination ports of connections in and out on which
	// ProtocolDetectionDeclared looks for HTTP, beside those that pods declare:
	// ports and ranges.
	HTTPPorts string `json:"httpPorts"`
	// HTTPLimits bound what a client can make Envoy keep, where Envoy looks
	// for HTTP.
	HTTPLimits HTTPLimits `json:"httpLimits"`
	// AccessLog says what Envoy logs of connections and requests: all, errors
	// or none; AccessLogQueries whether that has the query strings of HTTP.
	AccessLog        envoy.AccessLog `json:"accessLog"`
	AccessLogQueries bool            `json:"accessLogQueries"`
	// TCPKeepalive is TCP's, on both of Envoy's connections.
	TCPKeepalive TCPKeepalive `json:"tcpKeepalive"`
	// DropInvalid drops inbound TCP packets that belong to no connection, in
	// pods whose traffic is intercepted.
	DropInvalid bool `json:"dropInvalid"`
	// DrainDuration is how long the end of a pod waits for what is under way
	// through Envoy, where Envoy looks for HTTP or is a regular container. A pod
	// with a shorter grace period gets less.
	DrainDuration metav1.Duration `json:"drainDuration"`

	// HoldApplicationUntilProxyStarts has the pod's own containers wait for the
	// proxy where it is one of them. A native sidecar is waited for in any case.
	HoldApplicationUntilProxyStarts bool `json:"holdApplicationUntilProxyStarts"`

	// TProxyPortRange is where pods in TPROXY draw their local ports from, for
	// it not to be where their clients do; empty to leave it as it is.
	TProxyPortRange string `json:"tproxyPortRange"`

	// NativeSidecar says whether the proxy is a native sidecar, or in classic
	// order an ordinary container.
	NativeSidecar NativeSidecar `json:"nativeSidecar"`

	// PrometheusAnnotations says whether pods are given those by which
	// Prometheus finds Envoy's metrics.
	PrometheusAnnotations bool `json:"prometheusAnnotations"`

	// CheckPodSecurity refuses pods whose namespace enforces a Pod Security
	// level that forbids what their mode needs, before the API server does.
	// False is for clusters whose API server exempts them.
	CheckPodSecurity bool `json:"checkPodSecurity"`

	// DefaultPolicy is for pods that nothing else decides about.
	DefaultPolicy Policy `json:"defaultPolicy"`
	// AlwaysInjectSelector chooses pods, by their labels, that are injected
	// though neither their namespace nor they themselves say anything;
	// NeverInjectSelector chooses those that are not, unless they themselves
	// say so. A pod is chosen that any of the list matches; the second wins.
	AlwaysInjectSelector []metav1.LabelSelector `json:"alwaysInjectSelector,omitempty"`
	NeverInjectSelector  []metav1.LabelSelector `json:"neverInjectSelector,omitempty"`
	// ForbiddenAnnotations are the keys of labels and annotations that no pod may
	// set, as far as it would be injected; its namespace may.
	ForbiddenAnnotations []string `json:"forbiddenAnnotations"`
	// Revision is the one that this injector answers to, and its name in the
	// status annotation; a DNS label. The default one answers also to what
	// names no revision.
	Revision string `json:"revision"`

	// Sidecar says which proxy it is.
	Sidecar Sidecar `json:"sidecar"`
	// Templates are what a pod may have over the sidecar, by their names.
	Templates map[string]Template `json:"templates"`
}

// HTTPLimits bound what one client can make Envoy keep.
type HTTPLimits struct {
	// MaxHeaderKB bounds all headers of a request together, 1 to 8192 KiB.
	MaxHeaderKB int32 `json:"maxHeaderKB"`
	// MaxStreams bounds the requests at once on a connection of HTTP/2, 1 to
	// 2147483647.
	MaxStreams int32 `json:"maxStreams"`
	// HeaderTimeout is how long a client may take to send the headers of a
	// request; 0 for ever.
	HeaderTimeout metav1.Duration `json:"headerTimeout"`
}

// TCPKeepalive is when the kernel asks the other end of an idle connection
// whether it is still there. The names are Istio's.
type TCPKeepalive struct {
	Time     metav1.Duration `json:"time"`     // idle before the first probe, 1s to 32767s
	Interval metav1.Duration `json:"interval"` // between two probes, 1s to 32767s
	Probes   int32           `json:"probes"`   // unanswered, until the connection is given up, 1 to 127
}

// DefaultRevision is the one that those mean who ask for the proxy and name
// no revision.
const DefaultRevision = "default"

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

// Default returns the settings of an injector that was told nothing.
func Default() Config {
	proxy := envoy.DefaultSettings()
	return Config{
		InitImage:      "shunt-init",
		ProxyImage:     "envoyproxy/envoy:v1.40.0",
		PullPolicy:     corev1.PullIfNotPresent,
		Backend:        interception.BackendAuto,
		ProxyUID:       int64(interception.DefaultProxyUID),
		ProxyGID:       int64(interception.DefaultProxyGID),
		InitResources:  resources("10m", "16Mi", "1", "64Mi"),
		ProxyResources: resources("100m", "128Mi", "2", "1Gi"),
		Concurrency:    2,
		LogLevel:       "warning",
		DNSCapture:     DNSCaptureNone, ProtocolDetection: ProtocolDetectionNone,
		HTTPLimits: HTTPLimits{
			MaxHeaderKB: int32(proxy.HTTP.MaxHeaderKB), MaxStreams: int32(proxy.HTTP.MaxStreams),
			HeaderTimeout: inSeconds(proxy.HTTP.HeaderSeconds),
		},
		AccessLog: proxy.AccessLog, AccessLogQueries: proxy.AccessLogQueries,
		TCPKeepalive: TCPKeepalive{
			Time: inSeconds(proxy.Keepalive.TimeSeconds), Interval: inSeconds(proxy.Keepalive.IntervalSeconds),
			Probes: int32(proxy.Keepalive.Probes),
		},
		DrainDuration:                   metav1.Duration{Duration: 25 * time.Second},
		NativeSidecar:                   NativeSidecarAuto,
		HoldApplicationUntilProxyStarts: true,
		TProxyPortRange:                 defaultPortRange,
		PrometheusAnnotations:           true,
		CheckPodSecurity:                true,
		DefaultPolicy:                   PolicyDisabled,
		Revision:                        DefaultRevision,
		Sidecar:                         Sidecar{Type: SidecarEnvoy},
	}
}

func inSeconds(n uint32) metav1.Duration {
	return metav1.Duration{Duration: time.Duration(n) * time.Second}
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

// Template is what a pod that names it gets over the sidecar.
type Template struct {
	// Container is merged over the sidecar's, by strategic merge. What the rules
	// rely on it must leave as it is, and Envoy's command line, too.
	Container *corev1.Container `json:"container,omitempty"`
	// Volumes are those that Container mounts, beside the sidecar's.
	Volumes []corev1.Volume `json:"volumes,omitempty"`
}
