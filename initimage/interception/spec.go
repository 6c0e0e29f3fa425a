package interception

import (
	"net/netip"
)

// System is a set of rules: which hooks intercept the traffic, and what the app
// sees of its clients.
type System string

// The systems that shunt-init can build.
const (
	// SystemRedirect intercepts both directions by nat REDIRECT. The app sees
	// 127.0.0.6 or ::6 as every client's address.
	SystemRedirect System = "redirect"
	// SystemTProxy intercepts inbound connections by mangle TPROXY and outbound
	// ones by nat REDIRECT. The app sees the client's own address.
	SystemTProxy System = "tproxy"
	// SystemAmbient intercepts both directions by nat REDIRECT and recognizes the
	// proxy by its packet mark. The app sees the client's own address.
	SystemAmbient System = "ambient"
	// SystemLegacy is Istio's system of 2017: both directions go to one port, and
	// the app sees 127.0.0.1 or ::1.
	SystemLegacy System = "legacy"
)

// Mode is Istio's word for the interception of a pod, as in the annotation
// sidecar.istio.io/interceptionMode and the flag -m.
type Mode string

// The values of Mode.
const (
	ModeRedirect Mode = "REDIRECT" // SystemRedirect
	ModeTProxy   Mode = "TPROXY"   // SystemTProxy
	ModeNone     Mode = "NONE"     // no rules; only the annotation accepts it
)

// Defaults of a Spec: Istio's numbers (its "Ports used by Istio" page and
// istio-iptables' flags), which its users know.
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

	// HealthPort and StatusPort answer probes, MetricsPort serves Prometheus. All
	// three belong to the proxy and are never intercepted.
	HealthPort  uint16 = 15021
	StatusPort  uint16 = 15020
	MetricsPort uint16 = 15090
	// AdminPort is the proxy's administration interface, on loopback only.
	AdminPort uint16 = 15000
	// SSHPort is excluded where all inbound ports are intercepted, as by Istio's
	// rules, in SystemRedirect and SystemTProxy: a person who has to repair a pod
	// must get in past its proxy. Listed ports and ranges are intercepted even if
	// they contain it.
	SSHPort uint16 = 22
)

// MaxRanges is how many IP ranges a pod may have, and how many shunt-init gives to
// iptables, where each becomes a rule. It writes and reads them within the memory of
// a small container: docs/shunt-init.md lists how much it needs. A native table
// bears more, but little more fits in a pod's annotations.
const MaxRanges = 10_000

// Spec states which connections of a pod go through its proxy. The zero value is
// not useful: start from Default.
type Spec struct {
	System System

	OutboundPort uint16 // the proxy's listener for connections that the pod opens
	InboundPort  uint16 // the proxy's listener for connections to the pod
	TunnelPort   uint16 // inbound tunnel (HBONE) of the proxy, never intercepted; 0 for none

	// ProxyUIDs and ProxyGIDs identify the proxy: its connections are those of
	// processes with one of these ids. SystemAmbient uses Mark instead.
	ProxyUIDs []uint32
	ProxyGIDs []uint32

	InboundPorts        Ports      // pod's ports to intercept
	InboundExcludePorts PortRanges // of those, the excluded ones

	OutboundCIDRs        CIDRs      // destinations to intercept
	OutboundExcludeCIDRs Prefixes   // excluded destinations; they win over both includes
	OutboundPorts        PortRanges // destination ports to intercept even outside OutboundCIDRs
	OutboundExcludePorts PortRanges // excluded destination ports; they win over all of the above

	// VirtualInterfaces carry traffic of virtual machines in the pod: what comes in
	// by them is outbound. ExcludeInterfaces are not intercepted.
	VirtualInterfaces []string
	ExcludeInterfaces []string

	// OwnerGroups are the groups whose processes' connections are intercepted.
	// ExcludeOwnerGroups are exceptions if that is all of them.
	OwnerGroups        Groups
	ExcludeOwnerGroups []uint32

	// LoopbackCIDR is what counts as the IPv4 loopback address. Connections to the
	// rest of 127.0.0.0/8 may be intercepted as inbound.
	LoopbackCIDR netip.Prefix

	DNS DNS

	// UDPPorts are the pod's udp ports that SystemTProxy sends to the proxy. On
	// RejectUDPPorts clients are told to use tcp instead.
	UDPPorts       PortRanges
	RejectUDPPorts PortRanges

	// DropInvalid drops inbound tcp packets that belong to no connection.
	DropInvalid bool

	// Mark is the packet mark of the proxy in SystemTProxy and SystemAmbient. The
	// proxy sets it on its connections to the pod, and the rules set it on packets
	// that belong to the proxy. SystemTProxy also uses Mark+1, for the proxy's
	// calls to its own pod.
	Mark uint32
	// NoConntrack makes SystemTProxy keep its state in the marks of sockets: nothing of
	// the pod is tracked. Marks lists the marks, and which the proxy has to set.
	NoConntrack bool
	// RouteTable holds the route that keeps packets in the pod: in SystemTProxy and
	// SystemAmbient the app's answers to the proxy, in SystemRedirect the proxy's
	// IPv6 connections to the app that are bound to lo.
	RouteTable uint32
}

// DNS states which DNS queries of the pod go to the proxy.
type DNS struct {
	Redirect bool     // whether any go there
	All      bool     // to all servers, not only to Servers
	Servers  Prefixes // the pod's resolvers; if empty, those of its resolv.conf
	Port     uint16   // the proxy's listener for udp and tcp
}

// Default returns the Spec of Istio's default arguments: SystemRedirect, with
// everything intercepted but the proxy's own ports.
func Default() Spec { return DefaultFor(SystemRedirect) }

// DefaultFor returns what a system intercepts without further flags. SystemAmbient
// and SystemLegacy exclude no port, and SystemLegacy recognizes the proxy by its
// uid only.
func DefaultFor(system System) Spec {
	spec := Spec{
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
		spec.InboundExcludePorts, spec.RouteTable = nil, AmbientRouteTable
	case SystemLegacy:
		spec.InboundExcludePorts, spec.ProxyGIDs = nil, nil
	}
	return spec
}

// Mode returns the Istio mode of the spec's system, or "" if Istio has none.
func (s Spec) Mode() Mode {
	return map[System]Mode{SystemRedirect: ModeRedirect, SystemTProxy: ModeTProxy}[s.System]
}
