package inject

import (
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// Keys of labels and annotations, with Istio's names and values. What each
// means is in the table below.
const (
	// InjectKey, on a pod, asks for the proxy or declines it.
	InjectKey = "sidecar.istio.io/inject"
	// InterceptionModeKey chooses how the pod's traffic reaches the proxy.
	InterceptionModeKey = "sidecar.istio.io/interceptionMode"
	// LogLevelKey and ComponentLogLevelKey set how much Envoy logs.
	LogLevelKey          = "sidecar.istio.io/logLevel"
	ComponentLogLevelKey = "sidecar.istio.io/componentLogLevel"
	// NativeSidecarKey says which kind of container the proxy is.
	NativeSidecarKey = "sidecar.istio.io/nativeSidecar"
	// RewriteProbesKey says whether tcpSocket probes may be replaced.
	RewriteProbesKey = "sidecar.istio.io/rewriteAppHTTPProbers"

	// TrafficPrefix begins all keys that say which connections go through
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

	// ShuntPrefix begins the keys that Istio has none for.
	ShuntPrefix = "shunt.dev/"

	DNSCaptureKey        = ShuntPrefix + "dnsCapture"
	CaptureUDPPortsKey   = ShuntPrefix + "captureUDPPorts"
	RejectUDPPortsKey    = ShuntPrefix + "rejectUDPPorts"
	ProtocolDetectionKey = ShuntPrefix + "protocolDetection"
	HTTPPortsKey         = ShuntPrefix + "httpPorts"
	AccessLogKey         = ShuntPrefix + "accessLog"
	DrainDurationKey     = ShuntPrefix + "drainDuration"

	// NamespaceInjectionKey, on a namespace, asks for the proxy in all its
	// pods or declines it for all of them.
	NamespaceInjectionKey = "istio-injection"
	// RevisionKey, on a namespace or a pod, asks for the proxy of the injector
	// with this revision.
	RevisionKey = "istio.io/rev"
)

// Place is where a key stands.
type Place string

// The values of Place.
const (
	PodAnnotation       Place = "pod annotation"
	PodLabel            Place = "pod label"
	NamespaceAnnotation Place = "namespace annotation"
	NamespaceLabel      Place = "namespace label"
)

// settingPlaces are those of all that sets how a pod is injected: what its
// namespace says holds for every pod that does not say something else.
var settingPlaces = []Place{NamespaceAnnotation, PodAnnotation}

// Annotation is one row of the table of keys: all there is to know of it.
type Annotation struct {
	Key      string
	Places   []Place // where it is read; a later place wins over an earlier one
	Sets     string  // what it sets, in words
	Accepted string  // the values that it takes, in words
	Default  string  // what holds where it is absent, in words
	Flag     string  // shunt-init's flag that it becomes, without dashes; or empty
	Field    string  // the configuration's field that it stands in for; or empty
	Adds     bool    // whether it adds to what holds without it, and does not replace that
	Envoy    bool    // whether it is for Envoy, so that a custom sidecar has no use of it

	// read puts a value into a request; nil for a key that only the injector
	// writes.
	read func(*request, string) error
}

// request is what the labels and annotations of a pod and its namespace ask
// for, parsed.
type request struct {
	pod       *bool  // InjectKey; nil where it is absent
	namespace *bool  // NamespaceInjectionKey; nil where it is absent
	revision  string // RevisionKey, also a wrong one; empty where it is absent
	mode      interception.Mode
	spec      interception.Spec // System is set by the mode, when all is read
	from      source

	// What a pod or namespace has of its own, where the configuration has it
	// for all; the zero value where there is no annotation.
	dns               DNSCapture
	detection         ProtocolDetection
	httpPorts         interception.PortRanges
	accessLog         envoy.AccessLog
	drain             time.Duration
	drainKey          string // where that stands
	config            proxyConfig
	rewriteProbes     *bool
	native            *bool
	logLevel          string
	componentLogLevel string
	concurrency       *int32 // 0 for all cores
	dropInvalid       *bool
	resources         quantities
	image             string

	userVolumes       []corev1.Volume
	userMounts        []corev1.VolumeMount
	templates         []string // without the first, which is the sidecar
	bootstrapOverride string   // the name of a ConfigMap

	healthPort healthPort
	readiness  readiness

	// What combine puts into the spec, beside what else is there.
	excludedInbound interception.PortRanges
	rerouted        []string

	allowIdentity *bool // AllowProxyIdentityKey
}

// newRequest is what a pod without annotations asks for.
func newRequest() request {
	req := request{mode: interception.ModeRedirect, spec: interception.Default()}
	req.spec.TunnelPort = 0 // the injector's sidecars have no tunnel: the port is the application's
	return req
}

const (
	// NamespaceEnabled is the value of NamespaceInjectionKey that asks for the
	// proxy.
	NamespaceEnabled  = "enabled"
	namespaceDisabled = "disabled"
)

const (
	acceptedPorts    = "ports from 1 to 65535 and ranges such as 8000-8100, separated by commas"
	acceptedRanges   = "IPv4 and IPv6 addresses and CIDR ranges such as 10.0.0.0/8 or fd00::/8, separated by commas"
	acceptedNames    = "network interface names of at most 15 characters, separated by commas"
	acceptedWildcard = "* for all, an empty value for none, or "
	ofConfiguration  = "what the injector's configuration says, by default: "
)

// annotations is the table of all keys: the parser below it, the documents and
// the tests go by it. A new annotation is a constant above, a row here, cases in
// testdata/cases, and make generate for its row in docs/annotations.md.
var annotations = slices.Concat(trafficAnnotations, proxyAnnotations, readinessAnnotations, []Annotation{
	{
		Key: podplan.StatusKey, Places: []Place{PodAnnotation},
		Sets:     "nothing: the injector writes it, to record what it added",
		Accepted: "what the injector wrote; anything else counts as absent", Default: "not injected",
	},
})

// trafficAnnotations are the rows of whether and how a pod is intercepted, and
// of what Envoy makes of it.
var trafficAnnotations = []Annotation{
	{
		Key: NamespaceInjectionKey, Places: []Place{NamespaceLabel},
		Sets:     "whether pods of the namespace are injected; disabled wins over what a pod says",
		Accepted: "enabled, disabled", Default: "the injector's default policy",
		read: into(parseEnabled, func(r *request) **bool { return &r.namespace }),
	},
	{
		Key: RevisionKey, Places: []Place{PodLabel, NamespaceLabel},
		Sets:     "the revision of the injector that is to act; the namespace's label wins, and istio-injection over both",
		Accepted: "the name of a revision, which is a DNS label", Default: DefaultRevision + ", where injection is asked for otherwise",
		read: readRevision,
	},
	{
		Key: InjectKey, Places: []Place{PodAnnotation, PodLabel},
		Sets:     "whether the pod is injected; the label wins over the annotation",
		Accepted: "true, false", Default: "what the namespace says",
		read: into(parseTruth, func(r *request) **bool { return &r.pod }),
	},
	{
		Key: InterceptionModeKey, Places: settingPlaces,
		Sets: "how traffic reaches the proxy: REDIRECT hides the client's address from the application, " +
			"TPROXY keeps it, NONE adds the proxy and no interception, so that it goes beside another mesh's",
		Accepted: "REDIRECT, TPROXY, NONE", Default: "REDIRECT", Flag: "istio-inbound-interception-mode",
		read: into(parseMode, func(r *request) *interception.Mode { return &r.mode }),
	},
	{
		Key: IncludeInboundPortsKey, Places: settingPlaces,
		Sets: "ports of the pod whose connections go through the proxy; of all, those that excludeInboundPorts has by default do not, " +
			"and of a list 22 and 15020 do",
		Accepted: acceptedWildcard + acceptedPorts, Default: "*", Flag: "istio-inbound-ports",
		read: into(interception.ParsePorts, func(r *request) *interception.Ports { return &r.spec.InboundPorts }),
	},
	{
		Key: ExcludeInboundPortsKey, Places: settingPlaces, Adds: true,
		Sets:     "ports of the pod that are left alone, in addition to those of the default",
		Accepted: acceptedPorts,
		Default: "15021 (or the port of the proxy's health) and 15090 (its metrics); where includeInboundPorts is *, as with Istio also " +
			"22 (ssh) and 15020",
		Flag: "istio-local-exclude-ports",
		read: into(interception.ParsePortRanges, func(r *request) *interception.PortRanges { return &r.excludedInbound }),
	},
	{
		Key: IncludeOutboundIPRangesKey, Places: settingPlaces,
		Sets:     "destinations that the pod reaches through the proxy",
		Accepted: acceptedWildcard + acceptedRanges, Default: "*", Flag: "istio-service-cidr",
		read: into(interception.ParseCIDRs, func(r *request) *interception.CIDRs { return &r.spec.OutboundCIDRs }),
	},
	{
		Key: ExcludeOutboundIPRangesKey, Places: settingPlaces,
		Sets:     "destinations that are left alone",
		Accepted: acceptedRanges, Default: "none", Flag: "istio-service-exclude-cidr",
		read: into(interception.ParsePrefixes, func(r *request) *interception.Prefixes { return &r.spec.OutboundExcludeCIDRs }),
	},
	{
		Key: IncludeOutboundPortsKey, Places: settingPlaces,
		Sets:     "destination ports that go through the proxy even outside includeOutboundIPRanges",
		Accepted: acceptedPorts, Default: "none", Flag: "istio-outbound-ports",
		read: into(interception.ParsePortRanges, func(r *request) *interception.PortRanges { return &r.spec.OutboundPorts }),
	},
	{
		Key: ExcludeOutboundPortsKey, Places: settingPlaces,
		Sets:     "destination ports that are left alone",
		Accepted: acceptedPorts, Default: "none", Flag: "istio-local-outbound-ports-exclude",
		read: into(interception.ParsePortRanges, func(r *request) *interception.PortRanges { return &r.spec.OutboundExcludePorts }),
	},
	{
		Key: ExcludeInterfacesKey, Places: settingPlaces,
		Sets:     "network interfaces of the pod that are left alone",
		Accepted: acceptedNames, Default: "none", Flag: "istio-exclude-interfaces",
		read: into(interception.ParseInterfaces, func(r *request) *[]string { return &r.spec.ExcludeInterfaces }),
	},
	{
		Key: KubevirtInterfacesKey, Places: settingPlaces,
		Sets:     "interfaces of virtual machines in the pod, whose traffic counts as outbound",
		Accepted: acceptedNames, Default: "none", Flag: "kube-virt-interfaces",
		read: into(interception.ParseInterfaces, func(r *request) *[]string { return &r.spec.VirtualInterfaces }),
	},
	{
		Key: DNSCaptureKey, Places: settingPlaces, Field: "dnsCapture",
		Sets:     "DNS queries that go through the proxy: none, those to the pod's resolvers, or all",
		Accepted: "none, resolvers, all", Default: ofConfiguration + "none", Flag: "redirect-dns",
		read: into(word(DNSCaptureNone, DNSCaptureResolvers, DNSCaptureAll), func(r *request) *DNSCapture { return &r.dns }),
	},
	{
		Key: CaptureUDPPortsKey, Places: settingPlaces,
		Sets:     "udp ports of the pod that go through the proxy, which must not be Envoy; with TPROXY",
		Accepted: acceptedPorts, Default: "none", Flag: "capture-udp-ports",
		read: into(interception.ParsePortRanges, func(r *request) *interception.PortRanges { return &r.spec.UDPPorts }),
	},
	{
		Key: RejectUDPPortsKey, Places: settingPlaces,
		Sets:     "udp ports of the pod that are closed to its clients, so that those of QUIC take TCP; with TPROXY",
		Accepted: acceptedPorts, Default: "none", Flag: "reject-udp-ports",
		read: into(interception.ParsePortRanges, func(r *request) *interception.PortRanges { return &r.spec.RejectUDPPorts }),
	},
	{
		Key: ProtocolDetectionKey, Places: settingPlaces, Field: "protocolDetection", Envoy: true,
		Sets: "on which ports Envoy looks for HTTP and TLS, and carries HTTP request by request: none; declared, those that the pod's " +
			"containers name for it (http, http2, grpc, grpc-web, https, tls, each also with -suffix) and " + HTTPPortsKey + "; or all",
		Accepted: "none, declared, all", Default: ofConfiguration + "none: every connection is carried byte by byte",
		read: into(word(ProtocolDetectionNone, ProtocolDetectionDeclared, ProtocolDetectionAll),
			func(r *request) *ProtocolDetection { return &r.detection }),
	},
	{
		Key: HTTPPortsKey, Places: settingPlaces, Field: "httpPorts", Envoy: true,
		Sets: "destination ports, of the pod and of what it calls, on which Envoy looks for HTTP and TLS; it asks for " +
			ProtocolDetectionKey + ": declared",
		Accepted: acceptedPorts, Default: ofConfiguration + "none",
		read: into(interception.ParsePortRanges, func(r *request) *interception.PortRanges { return &r.httpPorts }),
	},
	{
		Key: AccessLogKey, Places: settingPlaces, Field: "accessLog", Envoy: true,
		Sets:     "which connections and requests Envoy logs: all, those that failed, or none",
		Accepted: "all, errors, none", Default: ofConfiguration + "all",
		read: into(word(envoy.AccessLogAll, envoy.AccessLogErrors, envoy.AccessLogNone),
			func(r *request) *envoy.AccessLog { return &r.accessLog }),
	},
	{
		Key: DrainDurationKey, Places: settingPlaces, Field: "drainDuration", Envoy: true,
		Sets: "how long the pod's end waits for requests under way through Envoy, where that looks for HTTP or is a regular " +
			"container; less than the grace period",
		Accepted: acceptedDuration, Default: ofConfiguration + "25s, or 5s less than a shorter grace period",
		read: into(parseDuration, func(r *request) *time.Duration { return &r.drain }),
	},
	{
		Key: LogLevelKey, Places: settingPlaces, Field: "logLevel", Envoy: true,
		Sets:     "how much Envoy logs",
		Accepted: acceptedLogLevels, Default: ofConfiguration + "warning",
		read: into(word(logLevels...), func(r *request) *string { return &r.logLevel }),
	},
	{
		Key: ComponentLogLevelKey, Places: settingPlaces, Field: "componentLogLevel", Envoy: true,
		Sets:     "how much parts of Envoy log, where that is not as the rest",
		Accepted: acceptedComponentLogLevels, Default: ofConfiguration + "none",
		read: into(parseComponentLogLevels, func(r *request) *string { return &r.componentLogLevel }),
	},
	{
		Key: NativeSidecarKey, Places: settingPlaces, Field: "nativeSidecar",
		Sets: "whether the proxy is a native sidecar, or in classic order an ordinary container, the first one; true takes Kubernetes " +
			"1.29 or newer",
		Accepted: "true, false", Default: "what the injector's configuration says, by default: true from Kubernetes 1.29 on",
		read: into(parseTruth, func(r *request) **bool { return &r.native }),
	},
	{
		Key: RewriteProbesKey, Places: settingPlaces,
		Sets: "whether shunt-init asks in place of a tcpSocket probe, which the proxy would answer; HTTP and gRPC probes pass through " +
			"the proxy as they are",
		Accepted: "true, false", Default: "true",
		read: into(parseTruth, func(r *request) **bool { return &r.rewriteProbes }),
	},
}

// Annotations returns the table of all keys that Shunt knows.
func Annotations() []Annotation { return slices.Clone(annotations) }

// into makes a reader out of a parser and the place for what it returns.
func into[T any](parse func(string) (T, error), place func(*request) *T) func(*request, string) error {
	return func(r *request, text string) error {
		value, err := parse(text)
		if err == nil {
			*place(r) = value
		}
		return err
	}
}

func parseMode(text string) (interception.Mode, error) {
	if text == string(interception.ModeNone) {
		return interception.ModeNone, nil
	}
	return interception.ParseMode(text)
}

func parseTruth(text string) (*bool, error) { return parseWord(text, "true", "false") }

func parseEnabled(text string) (*bool, error) {
	return parseWord(text, NamespaceEnabled, namespaceDisabled)
}

// readRevision keeps a name that is wrong, too: the webhooks' selectors cannot
// tell it from that of an injector that is not there, and it is treated as one.
func readRevision(r *request, text string) error {
	r.revision = text
	if wrong := validation.IsDNS1123Label(text); len(wrong) > 0 {
		return &interception.ValueError{Value: text, Accepted: "a DNS label"}
	}
	return nil
}

// parseWord reads one of two words. Case counts, as it does for Istio's labels.
func parseWord(text, yes, no string) (*bool, error) {
	if text != yes && text != no {
		return nil, &interception.ValueError{Value: text, Accepted: strconv.Quote(yes) + " or " + strconv.Quote(no)}
	}
	return new(text == yes), nil
}
