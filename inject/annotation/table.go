package annotation

import (
	"slices"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// settingPlaces are the places of keys that set how a pod is injected. The pod's
// annotation overrides the namespace's.
var settingPlaces = []Place{NamespaceAnnotation, PodAnnotation}

// Row describes one key.
type Row struct {
	Key      string
	Places   []Place // where it is read; a later place overrides an earlier one
	Sets     string  // what it sets; this and the next two are for docs/annotations.md
	Accepted string  // the accepted values, also for error messages
	Default  string  // the value if the key is absent
	Flag     string  // the flag of shunt-init that it sets, without dashes; or empty
	Field    string  // the field of the configuration that it overrides; or empty
	Adds     bool    // whether its value is added to the default instead of replacing it
	Envoy    bool    // whether it is for Envoy only, without effect on a custom sidecar

	// read parses a value into a request; nil for a key that only the injector
	// writes.
	read func(*Request, string) error
}

// table has a row for each key. Read, docs/annotations.md and the tests use it.
// doc.go lists what a new annotation needs.
var table = slices.Concat(trafficAnnotations, proxyAnnotations, readinessAnnotations, []Row{
	{
		Key: podplan.StatusKey, Places: []Place{PodAnnotation},
		Sets:     "nothing: the injector records here what it added",
		Accepted: "what the injector wrote; anything else counts as absent", Default: "not injected",
	},
	{
		Key: podplan.RulesKey, Places: []Place{PodAnnotation},
		Sets:     "nothing: the injector leaves here what shunt-node is to do, and denies pods that bring it",
		Accepted: "what the injector wrote", Default: "none: the pod's own init container writes the rules",
	},
})

// trafficAnnotations set whether and how a pod is intercepted, and what Envoy does
// with its connections.
var trafficAnnotations = []Row{
	{
		Key: NamespaceInjectionKey, Places: []Place{NamespaceLabel},
		Sets:     "whether pods of the namespace are injected; disabled overrides the pod's own setting",
		Accepted: "enabled, disabled", Default: "defaultPolicy of the injector's configuration",
		read: into(parseEnabled, func(r *Request) **bool { return &r.NamespaceInject }),
	},
	{
		Key: RevisionKey, Places: []Place{PodLabel, NamespaceLabel},
		Sets:     "revision of the injector that acts; the namespace's label overrides the pod's, and istio-injection overrides both",
		Accepted: "the name of a revision, which is a DNS label",
		Default:  config.DefaultRevision + ", where another key enables injection",
		read:     readRevision,
	},
	{
		Key: InjectKey, Places: []Place{PodAnnotation, PodLabel},
		Sets:     "whether the pod is injected; the label overrides the annotation",
		Accepted: "true, false", Default: "the namespace's setting",
		read: into(parseTruth, func(r *Request) **bool { return &r.PodInject }),
	},
	{
		Key: InterceptionModeKey, Places: settingPlaces,
		Sets: "interception mode: REDIRECT hides the client's address from the application, TPROXY keeps it, " +
			"NONE adds the proxy but does not intercept, so that it can run beside another mesh's",
		Accepted: "REDIRECT, TPROXY, NONE", Default: "REDIRECT", Flag: "istio-inbound-interception-mode",
		read: into(parseMode, func(r *Request) *interception.Mode { return &r.Mode }),
	},
	{
		Key: InterceptFromKey, Places: []Place{NamespaceAnnotation}, Field: "interceptFrom",
		Sets: "who writes the rules: pod, the pod's init container, which is root with NET_ADMIN; or node, the agent shunt-node, " +
			"with which pods in mode REDIRECT pass Pod Security's level restricted",
		Accepted: "pod, node", Default: ofConfiguration + "pod",
		read: into(oneOf(config.InterceptFromPod, config.InterceptFromNode),
			func(r *Request) *config.InterceptFrom { return &r.InterceptFrom }),
	},
	{
		Key: IncludeInboundPortsKey, Places: settingPlaces,
		Sets:     "inbound ports that go through the proxy, except the defaults of excludeInboundPorts",
		Accepted: acceptedWildcard + acceptedPorts, Default: "*", Flag: "istio-inbound-ports",
		read: into(interception.ParsePorts, func(r *Request) *interception.Ports { return &r.Spec.InboundPorts }),
	},
	{
		Key: ExcludeInboundPortsKey, Places: settingPlaces, Adds: true,
		Sets:     "inbound ports that bypass the proxy, in addition to the default",
		Accepted: acceptedPorts,
		Default: "15021 (or the proxy's health port) and 15090 (its metrics); if includeInboundPorts is *, also 22 (SSH) and 15020, " +
			"as with Istio",
		Flag: "istio-local-exclude-ports",
		read: into(interception.ParsePortRanges, func(r *Request) *interception.PortRanges { return &r.excludedInbound }),
	},
	{
		Key: IncludeOutboundIPRangesKey, Places: settingPlaces,
		Sets:     "destinations that the pod reaches through the proxy",
		Accepted: acceptedWildcard + acceptedRanges, Default: "*", Flag: "istio-service-cidr",
		read: into(interception.ParseCIDRs, func(r *Request) *interception.CIDRs { return &r.Spec.OutboundCIDRs }),
	},
	{
		Key: ExcludeOutboundIPRangesKey, Places: settingPlaces, Field: "excludeOutboundIPRanges",
		Sets:     "destinations that bypass the proxy",
		Accepted: acceptedRanges, Default: ofConfiguration + "none", Flag: "istio-service-exclude-cidr",
		read: into(interception.ParsePrefixes, func(r *Request) *interception.Prefixes { return &r.Spec.OutboundExcludeCIDRs }),
	},
	{
		Key: IncludeOutboundPortsKey, Places: settingPlaces,
		Sets:     "destination ports that go through the proxy, even outside includeOutboundIPRanges",
		Accepted: acceptedPorts, Default: "none", Flag: "istio-outbound-ports",
		read: into(interception.ParsePortRanges, func(r *Request) *interception.PortRanges { return &r.Spec.OutboundPorts }),
	},
	{
		Key: ExcludeOutboundPortsKey, Places: settingPlaces,
		Sets:     "destination ports that bypass the proxy",
		Accepted: acceptedPorts, Default: "none", Flag: "istio-local-outbound-ports-exclude",
		read: into(interception.ParsePortRanges, func(r *Request) *interception.PortRanges { return &r.Spec.OutboundExcludePorts }),
	},
	{
		Key: ExcludeInterfacesKey, Places: settingPlaces,
		Sets:     "network interfaces of the pod whose traffic bypasses the proxy",
		Accepted: acceptedNames, Default: "none", Flag: "istio-exclude-interfaces",
		read: into(interception.ParseInterfaces, func(r *Request) *[]string { return &r.Spec.ExcludeInterfaces }),
	},
	{
		Key: KubevirtInterfacesKey, Places: settingPlaces,
		Sets:     "interfaces of virtual machines in the pod; their traffic counts as outbound",
		Accepted: acceptedNames, Default: "none", Flag: "kube-virt-interfaces",
		read: into(interception.ParseInterfaces, func(r *Request) *[]string { return &r.Spec.VirtualInterfaces }),
	},
	{
		Key: DNSCaptureKey, Places: settingPlaces, Field: "dnsCapture",
		Sets:     "DNS queries that go through the proxy: none, those to the pod's resolvers, or all",
		Accepted: "none, resolvers, all", Default: ofConfiguration + "none", Flag: "redirect-dns",
		read: into(oneOf(config.DNSCaptureNone, config.DNSCaptureResolvers, config.DNSCaptureAll),
			func(r *Request) *config.DNSCapture { return &r.DNSCapture }),
	},
	{
		Key: CaptureUDPPortsKey, Places: settingPlaces,
		Sets:     "UDP ports of the pod that go through the proxy; needs TPROXY and a proxy other than Envoy",
		Accepted: acceptedPorts, Default: "none", Flag: "capture-udp-ports",
		read: into(interception.ParsePortRanges, func(r *Request) *interception.PortRanges { return &r.Spec.UDPPorts }),
	},
	{
		Key: RejectUDPPortsKey, Places: settingPlaces,
		Sets:     "UDP ports of the pod that are closed to its clients, so that QUIC clients use TCP; needs TPROXY",
		Accepted: acceptedPorts, Default: "none", Flag: "reject-udp-ports",
		read: into(interception.ParsePortRanges, func(r *Request) *interception.PortRanges { return &r.Spec.RejectUDPPorts }),
	},
	{
		Key: ProtocolDetectionKey, Places: settingPlaces, Field: "protocolDetection", Envoy: true,
		Sets: "ports on which Envoy detects HTTP and TLS, and handles HTTP per request: none; declared (container ports named http, " +
			"http2, grpc, grpc-web, https or tls, each also with -suffix, and " + HTTPPortsKey + "); or all",
		Accepted: "none, declared, all", Default: ofConfiguration + "none, which forwards every connection as bytes",
		read: into(oneOf(config.ProtocolDetectionNone, config.ProtocolDetectionDeclared, config.ProtocolDetectionAll),
			func(r *Request) *config.ProtocolDetection { return &r.ProtocolDetection }),
	},
	{
		Key: HTTPPortsKey, Places: settingPlaces, Field: "httpPorts", Envoy: true,
		Sets: "inbound and outbound ports on which Envoy detects HTTP and TLS; a less specific " + ProtocolDetectionKey +
			": none becomes declared",
		Accepted: acceptedPorts, Default: ofConfiguration + "none",
		read: into(interception.ParsePortRanges, func(r *Request) *interception.PortRanges { return &r.httpPorts }),
	},
	{
		Key: AccessLogKey, Places: settingPlaces, Field: "accessLog", Envoy: true,
		Sets: "which connections and requests Envoy logs: all; traffic, which is all but kubelet's httpGet probes that succeed; " +
			"those that failed (errors); or none",
		Accepted: "all, traffic, errors, none", Default: ofConfiguration + "traffic",
		read: into(oneOf(envoy.AccessLogAll, envoy.AccessLogTraffic, envoy.AccessLogErrors, envoy.AccessLogNone),
			func(r *Request) *envoy.AccessLog { return &r.accessLog }),
	},
	{
		Key: LogLevelKey, Places: settingPlaces, Field: "logLevel", Envoy: true,
		Sets:     "Envoy's log level",
		Accepted: config.AcceptedLogLevels, Default: ofConfiguration + "warning",
		read: into(oneOf(config.LogLevels...), func(r *Request) *string { return &r.logLevel }),
	},
	{
		Key: ComponentLogLevelKey, Places: settingPlaces, Field: "componentLogLevel", Envoy: true,
		Sets:     "log levels of single Envoy components",
		Accepted: config.AcceptedComponentLogLevels, Default: ofConfiguration + "none",
		read: into(config.ParseComponentLogLevels, func(r *Request) *string { return &r.ComponentLogLevel }),
	},
	{
		Key: NativeSidecarKey, Places: settingPlaces, Field: "nativeSidecar",
		Sets:     "whether the proxy is a native sidecar (Kubernetes 1.29 or newer), or the first regular container",
		Accepted: "true, false", Default: ofConfiguration + "true from Kubernetes 1.29 on",
		read: into(parseTruth, func(r *Request) **bool { return &r.NativeSidecar }),
	},
	{
		Key: RewriteProbesKey, Places: settingPlaces,
		Sets: "whether shunt-init checks the port in place of a tcpSocket probe, which the proxy would answer; HTTP and gRPC probes " +
			"pass through the proxy unchanged",
		Accepted: "true, false", Default: "true",
		read: into(parseTruth, func(r *Request) **bool { return &r.RewriteProbes }),
	},
}

// Table returns the table of all keys that Shunt knows. It is shared: do not
// change it.
func Table() []Row { return table }

// OfRules reports whether the key changes the rules. A pod without interception has
// none.
func (r Row) OfRules() bool { return r.Flag != "" && r.Key != InterceptionModeKey }

// IsSetting reports whether the key sets how a pod is injected. The other keys
// decide whether it is.
func (r Row) IsSetting() bool { return slices.Contains(r.Places, NamespaceAnnotation) }

// settableByPod reports whether a pod can set the key.
func (r Row) settableByPod() bool {
	return r.read != nil && slices.ContainsFunc(r.Places, func(place Place) bool { return slices.Contains(PodPlaces, place) })
}

// ForEnvoy reports whether a field of the configuration is for Envoy only, without
// effect on a custom sidecar.
func ForEnvoy(field string) bool {
	return field == configConcurrency || field == configDrain || field == configStats ||
		slices.ContainsFunc(table, func(row Row) bool { return row.Envoy && row.Field == field })
}
