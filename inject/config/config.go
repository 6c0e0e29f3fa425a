package config

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
)

// Policy sets whether pods are injected that no label, annotation or selector
// decides about.
type Policy string

// The values of Policy.
const (
	PolicyEnabled  Policy = "enabled"  // inject it
	PolicyDisabled Policy = "disabled" // leave it alone
)

// Config holds the injector's cluster-wide settings. Annotations override them.
// Start from Default; a Config with errors from Validate must not be used. The
// default of each field is in Default, and docs/configuration.md lists it.
type Config struct {
	// InitImage is the image of the init container shunt-init.
	InitImage string `json:"initImage"`
	// ProxyImage is the image of the sidecar shunt-proxy, with SidecarEnvoy. It must
	// have the program envoy on its PATH.
	ProxyImage string `json:"proxyImage"`
	// AllowedProxyImages are the registries, repositories and images that a pod's
	// annotation for the proxy's image may name. If empty, it is denied.
	AllowedProxyImages []string `json:"allowedProxyImages"`
	// PullPolicy applies to both images: Always, IfNotPresent or Never.
	PullPolicy corev1.PullPolicy `json:"pullPolicy"`
	// ImagePullSecrets are added to every pod, for both images.
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`

	// Backend is the kernel interface that shunt-init writes to: auto, nft (iptables
	// over nf_tables), nftables (a native table) or legacy. Only legacy gives the
	// init container NET_RAW and a writable /run. With auto, shunt-init uses nft, or
	// nftables if the image or the kernel lacks what nft needs. It fails if the pod's
	// new network namespace already has legacy rules, from a CNI plug-in; set legacy
	// then.
	Backend interception.Backend `json:"backend"`

	// ExcludeOutboundIPRanges are destinations that bypass the proxy: ranges
	// separated by commas or, as file:NAME, those in the lines of a file beside the
	// configuration's, which ReadFiles puts in its place.
	ExcludeOutboundIPRanges string `json:"excludeOutboundIPRanges"`

	// InterceptFrom sets who writes the rules: pod, the pod's own init container, or
	// node, the agent shunt-node, which has to run on every node of such pods. The
	// agent writes nf_tables itself: Backend does not apply to it.
	InterceptFrom InterceptFrom `json:"interceptFrom"`

	// ProxyUID and ProxyGID are the proxy's user and group, 1 to 2147483647. The
	// rules recognise its connections by them. No container of a pod may have
	// them, unless the annotation allowProxyIdentity is true.
	ProxyUID int64 `json:"proxyUID"`
	ProxyGID int64 `json:"proxyGID"`

	// InitResources and ProxyResources are the requests and limits of the two
	// containers.
	InitResources  corev1.ResourceRequirements `json:"initResources"`
	ProxyResources corev1.ResourceRequirements `json:"proxyResources"`
	// Concurrency is the number of Envoy's worker threads, 1 to 1024, or 0 for all
	// cores.
	Concurrency int32 `json:"concurrency"`
	// LogLevel is Envoy's log level, one of LogLevels. ComponentLogLevel sets the
	// levels of single components, such as http:debug,config:info.
	LogLevel          string `json:"logLevel"`
	ComponentLogLevel string `json:"componentLogLevel"`

	// DNSCapture sets which DNS queries go through the proxy.
	DNSCapture DNSCapture `json:"dnsCapture"`
	// ProtocolDetection sets the ports on which Envoy detects HTTP and TLS.
	ProtocolDetection ProtocolDetection `json:"protocolDetection"`
	// HTTPPorts are the inbound and outbound ports on which
	// ProtocolDetectionDeclared detects HTTP and TLS, in addition to those that
	// pods declare: ports and ranges, separated by commas.
	HTTPPorts string `json:"httpPorts"`
	// HTTPLimits limit what Envoy buffers for one client, where it detects HTTP.
	HTTPLimits HTTPLimits `json:"httpLimits"`
	// AccessLog sets which connections and requests Envoy logs: all, traffic,
	// errors or none. AccessLogQueries sets whether entries contain HTTP query strings.
	AccessLog        envoy.AccessLog `json:"accessLog"`
	AccessLogQueries bool            `json:"accessLogQueries"`
	// ProxyStatsMatcher adds to the statistics that Envoy keeps for every pod.
	ProxyStatsMatcher envoy.StatsMatcher `json:"proxyStatsMatcher"`
	// TCPKeepalive applies to both of Envoy's connections, to the client and to the
	// server.
	TCPKeepalive TCPKeepalive `json:"tcpKeepalive"`
	// DropInvalid drops inbound TCP packets that belong to no connection, in
	// pods whose traffic is intercepted.
	DropInvalid bool `json:"dropInvalid"`
	// DrainDuration is how long the end of a pod waits for open connections and
	// requests, where Drains is true; a time above 0. A short grace period lowers
	// it.
	DrainDuration metav1.Duration `json:"drainDuration"`

	// HoldApplicationUntilProxyStarts makes the pod's own containers wait for a
	// proxy that is a regular container. They always wait for a native sidecar.
	HoldApplicationUntilProxyStarts bool `json:"holdApplicationUntilProxyStarts"`

	// TProxyPortRange is the range of ephemeral ports for pods in TPROXY, which
	// must not overlap with their clients': a range from 1024 on, or empty to keep
	// the pod's range.
	TProxyPortRange string `json:"tproxyPortRange"`

	// NativeSidecar sets whether the proxy is a native sidecar or a regular
	// container: auto, enabled or disabled.
	NativeSidecar NativeSidecar `json:"nativeSidecar"`

	// PrometheusAnnotations sets whether pods get the annotations with which
	// Prometheus finds Envoy's metrics.
	PrometheusAnnotations bool `json:"prometheusAnnotations"`

	// CheckPodSecurity denies pods whose namespace enforces a Pod Security level
	// that forbids what their mode needs, before the API server does. Set false
	// where the API server exempts them.
	CheckPodSecurity bool `json:"checkPodSecurity"`

	// DefaultPolicy applies to pods that nothing else decides about: enabled or
	// disabled.
	DefaultPolicy Policy `json:"defaultPolicy"`
	// AlwaysInjectSelector selects pods that are injected although neither they
	// nor their namespace ask for it. NeverInjectSelector selects pods that are not
	// injected, unless they ask for it themselves, and overrides the former. One
	// matching selector of a list is enough.
	AlwaysInjectSelector []metav1.LabelSelector `json:"alwaysInjectSelector,omitempty"`
	NeverInjectSelector  []metav1.LabelSelector `json:"neverInjectSelector,omitempty"`
	// ForbiddenAnnotations are the keys of labels and annotations that an injected
	// pod may not set; its namespace may.
	ForbiddenAnnotations []string `json:"forbiddenAnnotations"`
	// Revision is this injector's revision, a DNS label, which it also writes to
	// the status annotation. DefaultRevision also injects pods that ask for the
	// proxy without a revision.
	Revision string `json:"revision"`

	// Sidecar sets which proxy is injected.
	Sidecar Sidecar `json:"sidecar"`
	// Templates are changes to the sidecar that pods can choose, by name.
	Templates map[string]Template `json:"templates"`
}

// HTTPLimits limit what Envoy buffers for one client.
type HTTPLimits struct {
	// MaxHeaderKB is the size of all headers of a request, 1 to 8192 KiB.
	MaxHeaderKB int32 `json:"maxHeaderKB"`
	// MaxStreams is the number of concurrent requests on an HTTP/2 connection, 1
	// to 2147483647.
	MaxStreams int32 `json:"maxStreams"`
	// HeaderTimeout is how long a client may take to send the headers of a
	// request, up to 24h; 0 means no limit.
	HeaderTimeout metav1.Duration `json:"headerTimeout"`
}

// TCPKeepalive sets when the kernel probes the other end of an idle connection. The
// names are Istio's.
type TCPKeepalive struct {
	Time     metav1.Duration `json:"time"`     // idle time before the first probe, 1s to 32767s
	Interval metav1.Duration `json:"interval"` // time between two probes, 1s to 32767s
	Probes   int32           `json:"probes"`   // unanswered probes before the connection is closed, 1 to 127
}

// DefaultRevision is the revision for pods that ask for the proxy without a
// revision.
const DefaultRevision = "default"

// SidecarType sets who defines the sidecar's container.
type SidecarType string

// The values of SidecarType.
const (
	SidecarEnvoy  SidecarType = "envoy"  // Shunt: Envoy and its bootstrap
	SidecarCustom SidecarType = "custom" // the operator: Sidecar.Container
)

// Sidecar is the proxy that pods get.
type Sidecar struct {
	Type SidecarType `json:"type"`
	// Container, with SidecarCustom only, is merged (strategic merge) into what
	// Shunt sets for any proxy. It must have an image and must not change what the
	// rules rely on.
	Container *corev1.Container `json:"container,omitempty"`
	// Volumes, with SidecarCustom only, are added to the pod for Container to mount.
	Volumes []corev1.Volume `json:"volumes,omitempty"`
}

// Default returns the settings without a configuration file. Envoy's HTTP limits,
// access log and keepalive come from envoy.DefaultSettings.
func Default() Config {
	proxy := envoy.DefaultSettings()
	return Config{
		InitImage:      "shunt-init",
		ProxyImage:     "envoyproxy/envoy:v1.40.0",
		PullPolicy:     corev1.PullIfNotPresent,
		Backend:        interception.BackendAuto,
		InterceptFrom:  InterceptFromPod,
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

func inSeconds(seconds uint32) metav1.Duration {
	return metav1.Duration{Duration: time.Duration(seconds) * time.Second}
}

// resources returns requests and limits. The sidecar's defaults are Istio's. The
// init container's are lower: Kubernetes counts the maximum of an init container
// and of all that runs later, not the sum. So its limit of one CPU costs nothing
// and avoids a throttled start.
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

// Template changes the sidecar of pods that name it.
type Template struct {
	// Container is merged (strategic merge) into the sidecar's. It must not change
	// what the rules rely on, nor Envoy's command line.
	Container *corev1.Container `json:"container,omitempty"`
	// Volumes are added to the pod for Container to mount.
	Volumes []corev1.Volume `json:"volumes,omitempty"`
}
