package interception

// System names a set of rules: which hooks catch the traffic, and what the
// application sees of its clients.
type System string

// The systems that shunt-init can build.
const (
	// SystemRedirect catches both directions by nat REDIRECT; the application
	// sees 127.0.0.6 or ::6 as every client's address.
	SystemRedirect System = "redirect"
	// SystemTProxy catches inbound connections by mangle TPROXY and outbound
	// ones by nat REDIRECT; the application sees the client's own address.
	SystemTProxy System = "tproxy"
)

// Mode is Istio's word for the interception of a pod, as the annotation
// sidecar.istio.io/interceptionMode and the flag -m spell it.
type Mode string

// The values of Mode.
const (
	ModeRedirect Mode = "REDIRECT" // SystemRedirect
	ModeTProxy   Mode = "TPROXY"   // SystemTProxy
	ModeNone     Mode = "NONE"     // no rules; only the annotation takes it
)

// Defaults of a Spec: Istio's numbers (its "Ports used by Istio" page and
// istio-iptables' flags), so that its users find what they know.
const (
	DefaultOutboundPort uint16 = 15001
	DefaultInboundPort  uint16 = 15006
	DefaultTunnelPort   uint16 = 15008
	DefaultProxyUID     uint32 = 1337
	DefaultProxyGID     uint32 = 1337
	DefaultMark         uint32 = 1337
	DefaultRouteTable   uint32 = 133

	// HealthPort and StatusPort answer probes, MetricsPort serves Prometheus;
	// all three are the proxy's own and reached without interception.
	HealthPort  uint16 = 15021
	StatusPort  uint16 = 15020
	MetricsPort uint16 = 15090
	// AdminPort is the proxy's administration interface, on loopback only.
	AdminPort uint16 = 15000
	// SSHPort is never intercepted when all inbound ports are: a person who
	// must repair a pod has to get in past its proxy.
	SSHPort uint16 = 22
)

// Spec says which connections of a pod go through its proxy. The zero value is
// not useful: start from Default.
type Spec struct {
	System System

	OutboundPort uint16 // the proxy's listener for connections that the pod opens
	InboundPort  uint16 // the proxy's listener for connections to the pod
	TunnelPort   uint16 // inbound tunnel (HBONE) of the proxy; never intercepted

	// ProxyUIDs and ProxyGIDs tell the proxy's own connections from the
	// pod's: a process with one of these ids is the proxy.
	ProxyUIDs []uint32
	ProxyGIDs []uint32

	InboundPorts        Ports      // pod's ports to intercept
	InboundExcludePorts PortRanges // of those, the ones left alone

	OutboundCIDRs        CIDRs      // destinations to intercept
	OutboundExcludeCIDRs Prefixes   // destinations left alone; stronger than both includes
	OutboundPorts        PortRanges // destination ports to intercept even outside OutboundCIDRs
	OutboundExcludePorts PortRanges // destination ports left alone; stronger than all of the above

	// VirtualInterfaces carry traffic of virtual machines in the pod: what
	// comes in on them is outbound. ExcludeInterfaces are left alone.
	VirtualInterfaces []string
	ExcludeInterfaces []string

	// Mark is the packet mark of SystemTProxy: set by the proxy on its
	// connections to the pod and by the rules on packets that belong to the
	// proxy. Mark+1 is used too, for the proxy's calls to its own pod.
	Mark uint32
	// RouteTable holds the route that gives packets with Mark to the proxy.
	RouteTable uint32
}

// Default is the Spec of Istio's default arguments: SystemRedirect, everything
// intercepted but the proxy's own ports.
func Default() Spec {
	return Spec{
		System:       SystemRedirect,
		OutboundPort: DefaultOutboundPort,
		InboundPort:  DefaultInboundPort,
		TunnelPort:   DefaultTunnelPort,
		ProxyUIDs:    []uint32{DefaultProxyUID},
		ProxyGIDs:    []uint32{DefaultProxyGID},
		InboundPorts: Ports{All: true},
		InboundExcludePorts: NewPortRanges(
			PortRange{StatusPort, StatusPort}, PortRange{HealthPort, HealthPort}, PortRange{MetricsPort, MetricsPort}),
		OutboundCIDRs: CIDRs{All: true},
		Mark:          DefaultMark,
		RouteTable:    DefaultRouteTable,
	}
}

// Mode returns the Istio mode of the spec's system.
func (s Spec) Mode() Mode {
	if s.System == SystemTProxy {
		return ModeTProxy
	}
	return ModeRedirect
}
