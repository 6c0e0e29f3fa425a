package interception

import (
	"net/netip"
)

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
	// SystemAmbient catches both directions by nat REDIRECT and knows the
	// proxy by its packet mark; the application sees the client's own address.
	SystemAmbient System = "ambient"
	// SystemLegacy is Istio's of 2017: both directions go to one port, and
	// the application sees 127.0.0.1 or ::1.
	SystemLegacy System = "legacy"
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
	DefaultDNSPort      uint16 = 15053
	DefaultProxyUID     uint32 = 1337
	DefaultProxyGID     uint32 = 1337
	DefaultMark         uint32 = 1337
	DefaultRouteTable   uint32 = 133
	// AmbientRouteTable is the routing table of SystemAmbient.
	AmbientRouteTable uint32 = 100

	// HealthPort and StatusPort answer probes, MetricsPort serves Prometheus;
	// all three are the proxy's own and reached without interception.
	HealthPort  uint16 = 15021
	StatusPort  uint16 = 15020
	MetricsPort uint16 = 15090
	// AdminPort is the proxy's administration interface, on loopback only.
	AdminPort uint16 = 15000
	// SSHPort is left alone where all inbound ports are intercepted, as by
	// Istio's rules, in SystemRedirect and SystemTProxy: a person who must
	// repair a pod has to get in past its proxy. Ports that are listed, as a
	// range too, are intercepted, this one among them.
	SSHPort uint16 = 22
)

// Spec says which connections of a pod go through its proxy. The zero value is
// not useful: start from Default.
type Spec struct {
	System System

	OutboundPort uint16 // the proxy's listener for connections that the pod opens
	InboundPort  uint16 // the proxy's listener for connections to the pod
	TunnelPort   uint16 // inbound tunnel (HBONE) of the proxy, never intercepted; 0 where it has none

	// ProxyUIDs and ProxyGIDs tell the proxy's own connections from the
	// pod's: a process with one of these ids is the proxy. SystemAmbient
	// goes by Mark instead.
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

	// OwnerGroups are the groups whose processes' connections are
	// intercepted, and ExcludeOwnerGroups those, of all, that are not.
	OwnerGroups        Groups
	ExcludeOwnerGroups []uint32

	// LoopbackCIDR is what counts as the IPv4 loopback address; connections
	// to the rest of 127.0.0.0/8 may be intercepted inbound.
	LoopbackCIDR netip.Prefix

	DNS DNS

	// UDPPorts are the pod's udp ports that SystemTProxy sends to the proxy,
	// and RejectUDPPorts those where a client is told to use tcp instead.
	UDPPorts       PortRanges
	RejectUDPPorts PortRanges

	// DropInvalid drops inbound tcp packets that belong to no connection.
	DropInvalid bool

	// Mark is the packet mark of the proxy, in SystemTProxy and SystemAmbient:
	// set by the proxy on its connections to the pod and by the rules on
	// packets that belong to the proxy. SystemTProxy uses Mark+1 too, for the
	// proxy's calls to its own pod.
	Mark uint32
	// RouteTable holds the route that keeps packets in the pod: in SystemTProxy
	// and SystemAmbient the app's answers to the proxy, and in SystemRedirect
	// the proxy's IPv6 hop to the app where it is bound to lo.
	RouteTable uint32
}

// DNS says which DNS queries of the pod go to the proxy.
type DNS struct {
	Redirect bool     // any at all
	All      bool     // to all servers, rather than to Servers
	Servers  Prefixes // the pod's resolvers; where it is empty, those of its resolv.conf
	Port     uint16   // the proxy's listener for udp and tcp
}

// Default is the Spec of Istio's default arguments: SystemRedirect, everything
// intercepted but the proxy's own ports.
func Default() Spec { return DefaultFor(SystemRedirect) }

// DefaultFor is what a system intercepts when no flag says otherwise.
// SystemAmbient and SystemLegacy leave no port alone, and SystemLegacy knows
// the proxy by its uid only.
func DefaultFor(system System) Spec {
	s := Spec{
		System:       system,
		OutboundPort: DefaultOutboundPort,
		InboundPort:  DefaultInboundPort,
		TunnelPort:   DefaultTunnelPort,
		ProxyUIDs:    []uint32{DefaultProxyUID},
		ProxyGIDs:    []uint32{DefaultProxyGID},
		InboundPorts: Ports{All: true},
		InboundExcludePorts: NewPortRanges(
			PortRange{StatusPort, StatusPort}, PortRange{HealthPort, HealthPort}, PortRange{MetricsPort, MetricsPort}),
		OutboundCIDRs: CIDRs{All: true},
		OwnerGroups:   Groups{All: true},
		LoopbackCIDR:  netip.MustParsePrefix("127.0.0.1/32"),
		DNS:           DNS{Port: DefaultDNSPort},
		Mark:          DefaultMark,
		RouteTable:    DefaultRouteTable,
	}
	switch system {
	case SystemAmbient:
		s.InboundExcludePorts, s.RouteTable = nil, AmbientRouteTable
	case SystemLegacy:
		s.InboundExcludePorts, s.ProxyGIDs = nil, nil
	}
	return s
}

// Mode returns the Istio mode of the spec's system, or "" where Istio has none.
func (s Spec) Mode() Mode {
	return map[System]Mode{SystemRedirect: ModeRedirect, SystemTProxy: ModeTProxy}[s.System]
}
