package annotation

// Keys of labels and annotations, with Istio's names and values. The table
// describes each.
const (
	// InjectKey, on a pod, asks for the proxy or declines it.
	InjectKey = "sidecar.istio.io/inject"
	// InterceptionModeKey chooses how the pod's traffic reaches the proxy.
	InterceptionModeKey = "sidecar.istio.io/interceptionMode"
	// LogLevelKey and ComponentLogLevelKey set how much Envoy logs.
	LogLevelKey          = "sidecar.istio.io/logLevel"
	ComponentLogLevelKey = "sidecar.istio.io/componentLogLevel"
	// NativeSidecarKey chooses a native sidecar or a regular container.
	NativeSidecarKey = "sidecar.istio.io/nativeSidecar"
	// RewriteProbesKey allows or forbids replacing tcpSocket probes.
	RewriteProbesKey = "sidecar.istio.io/rewriteAppHTTPProbers"

	// TrafficPrefix begins all keys that choose which connections go through
	// the proxy.
	TrafficPrefix = "traffic.sidecar.istio.io/"

	IncludeInboundPortsKey     = TrafficPrefix + "includeInboundPorts"
	ExcludeInboundPortsKey     = TrafficPrefix + "excludeInboundPorts"
	IncludeOutboundPortsKey    = TrafficPrefix + "includeOutboundPorts"
	ExcludeOutboundPortsKey    = TrafficPrefix + "excludeOutboundPorts"
	IncludeOutboundIPRangesKey = TrafficPrefix + "includeOutboundIPRanges"
	ExcludeOutboundIPRangesKey = TrafficPrefix + "excludeOutboundIPRanges"
	ExcludeInterfacesKey       = TrafficPrefix + "excludeInterfaces"
	KubevirtInterfacesKey      = TrafficPrefix + "kubevirtInterfaces"

	// ShuntPrefix begins the keys that have no counterpart in Istio.
	ShuntPrefix = "shunt.dev/"

	// InterceptFromKey, on a namespace, chooses who writes the rules.
	InterceptFromKey     = ShuntPrefix + "interceptFrom"
	DNSCaptureKey        = ShuntPrefix + "dnsCapture"
	CaptureUDPPortsKey   = ShuntPrefix + "captureUDPPorts"
	RejectUDPPortsKey    = ShuntPrefix + "rejectUDPPorts"
	ProtocolDetectionKey = ShuntPrefix + "protocolDetection"
	HTTPPortsKey         = ShuntPrefix + "httpPorts"
	AccessLogKey         = ShuntPrefix + "accessLog"

	// NamespaceInjectionKey, on a namespace, asks for the proxy in all its
	// pods or declines it for all of them.
	NamespaceInjectionKey = "istio-injection"
	// RevisionKey, on a namespace or a pod, asks for the proxy of the injector
	// with this revision.
	RevisionKey = "istio.io/rev"
)

const (
	// NamespaceEnabled is the value of NamespaceInjectionKey that asks for the
	// proxy.
	NamespaceEnabled = "enabled"
	// NamespaceDisabled is the value that declines it.
	NamespaceDisabled = "disabled"
)

// Keys of annotations for the proxy itself.
const (
	// ProxyCPUKey and the next three set the proxy's requests and limits.
	ProxyCPUKey         = sidecarPrefix + "proxyCPU"
	ProxyCPULimitKey    = sidecarPrefix + "proxyCPULimit"
	ProxyMemoryKey      = sidecarPrefix + "proxyMemory"
	ProxyMemoryLimitKey = sidecarPrefix + "proxyMemoryLimit"

	// ProxyImageKey names another image for the proxy.
	ProxyImageKey = sidecarPrefix + "proxyImage"

	// ProxyConfigKey holds some of the settings in the form of Istio's mesh
	// configuration.
	ProxyConfigKey = proxyPrefix + "config"

	// UserVolumeKey adds volumes for the proxy; UserVolumeMountKey mounts them.
	UserVolumeKey      = sidecarPrefix + "userVolume"
	UserVolumeMountKey = sidecarPrefix + "userVolumeMount"
	// TemplatesKey names templates from the configuration.
	TemplatesKey = "inject.istio.io/templates"
	// BootstrapOverrideKey names a ConfigMap with additions to Envoy's bootstrap.
	BootstrapOverrideKey = sidecarPrefix + "bootstrapOverride"

	// HealthPortKey sets the proxy's health port.
	HealthPortKey = "status." + sidecarPrefix + "port"
	// ReadinessInitialDelayKey and the next two set up the proxy's readiness probe.
	ReadinessInitialDelayKey = readinessPrefix + "initialDelaySeconds"
	ReadinessPeriodKey       = readinessPrefix + "periodSeconds"
	ReadinessFailuresKey     = readinessPrefix + "failureThreshold"

	// RerouteVirtualInterfacesKey is Istio's newer name for
	// KubevirtInterfacesKey.
	RerouteVirtualInterfacesKey = "istio.io/reroute-virtual-interfaces"

	AllowProxyIdentityKey = ShuntPrefix + "allowProxyIdentity"
)

const (
	sidecarPrefix   = "sidecar.istio.io/"
	proxyPrefix     = "proxy.istio.io/"
	readinessPrefix = "readiness.status." + sidecarPrefix
)
