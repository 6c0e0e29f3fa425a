package ruleset

import (
	"net/netip"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// addInbound adds to nat the chains that take connections to the pod to a port
// of the proxy, and the jump to them.
func (b *builder) addInbound(proxyPort uint16, head ...Rule) {
	b.nat.add(chainInRedirect, rule("to the inbound listener of the proxy", Redirect{proxyPort}, tcp))
	b.nat.add(chainInbound, b.interfacePolicy()...)
	b.nat.add(chainInbound, head...)
	b.nat.add(chainInbound, b.inboundPolicy(chainInRedirect)...)
	b.nat.add("PREROUTING", rule("connections to the pod", Jump{Chain: chainInbound}, tcp))
}

// guardLoopback keeps from this host what a neighbour on its link sends to an
// address that means whichever host it is used on. nat would give such a packet
// an address of the pod's, and the proxy would connect to the one it had.
//
//	destination      | what the kernel does with it, unless it is rewritten | gets
//	127.0.0.0/8      | drops it, but delivers it where route_localnet is set | Nowhere
//	0.0.0.0          | drops it                                              | no new address
//	::, ::ffff:0:0/96 | has no route to it                                   | no new address
//	::1              | drops it before netfilter                             | no rule
//
// route_localnet is set in the pods of most clusters: kube-proxy sets it on the
// node, and new namespaces take it from there. A source among these addresses
// is dropped by the kernel in any case.
//
// The rules are in nat, which has one look at a connection: what is established
// meets none of them.
func (b *builder) guardLoopback() {
	fromOutside := InInterface{Name: loopbackName, Not: true}
	var rules []Rule
	if b.family == IPv4 {
		rules = append(rules, rule("loopback destination from outside: to nowhere", Nowhere{},
			Destination{Prefix: netip.MustParsePrefix("127.0.0.0/8")}, fromOutside))
	}
	if b.nat.chain("PREROUTING") != nil {
		unrouted := []netip.Prefix{hostPrefix(b.family.unspecified())}
		if b.family == IPv6 {
			unrouted = append(unrouted, netip.MustParsePrefix("::ffff:0:0/96"))
		}
		for _, prefix := range unrouted {
			rules = append(rules, rule("unroutable destination: not rewritten, so that the kernel drops it", Return,
				Destination{Prefix: prefix}, fromOutside))
		}
	}
	if rules != nil {
		b.nat.insert("PREROUTING", rules...)
	}
}

// inboundPolicy decides which ports of the pod go to the proxy, by a jump to
// the chain that takes them there. What is left alone comes first.
func (b *builder) inboundPolicy(intercept string) []Rule {
	var rules []Rule
	if b.spec.System != interception.SystemLegacy && b.spec.TunnelPort != 0 {
		rules = append(rules, rule("the tunnel port belongs to the proxy", Return, tcp, port(tcp, b.spec.TunnelPort)))
	}
	if b.spec.InboundPorts.All && b.sparesSSH() {
		rules = append(rules, rule("ssh, left alone unless its port is listed: a way in for repairs", Return, tcp,
			port(tcp, interception.SSHPort)))
	}
	rules = append(rules, forPorts("inbound ports left alone, by setting or by default", Return, tcp, b.spec.InboundExcludePorts)...)
	if b.spec.InboundPorts.All {
		return append(rules, rule("every other inbound port", Jump{Chain: intercept}, tcp))
	}
	return append(rules, forPorts("inbound ports to intercept", Jump{Chain: intercept}, tcp, b.spec.InboundPorts.Ranges)...)
}

// sparesSSH reports whether the system leaves ssh alone where all ports are
// intercepted, and no list of ports says so already.
func (b *builder) sparesSSH() bool {
	spares := b.spec.System == interception.SystemRedirect || b.spec.System == interception.SystemTProxy
	return spares && !b.spec.InboundExcludePorts.Contains(interception.SSHPort)
}

// interfacePolicy is the part of the inbound policy that looks at interfaces:
// some are left alone, and what virtual machines send is outbound.
func (b *builder) interfacePolicy() []Rule {
	var rules []Rule
	for _, name := range b.spec.ExcludeInterfaces {
		rules = append(rules, rule("interface left alone", Return, InInterface{Name: name}))
	}
	for _, name := range b.spec.VirtualInterfaces {
		in := InInterface{Name: name}
		rules = append(rules, forPorts("outbound ports left alone", Return, tcp, b.spec.OutboundExcludePorts, in)...)
		if b.capturesDNS() {
			rules = append(rules, rule("DNS queries of a virtual machine", Jump{Chain: chainDNS}, in, tcp, port(tcp, dnsPort)))
		}
		rules = append(rules,
			rule("connections of a virtual machine are outbound", Jump{Chain: chainOutbound}, in),
			rule("connections of a virtual machine are not inbound", Return, in))
	}
	return rules
}

// addOutbound adds to nat the chains that take the pod's own connections to
// the proxy, and the jump to them; hop are the rules for the proxy's hop to the
// app, and overLoopback what else goes over lo without being left alone.
func (b *builder) addOutbound(hop, overLoopback []Rule) {
	b.nat.add(chainRedirect, rule("to the outbound listener of the proxy", Redirect{b.spec.OutboundPort}, tcp))
	b.nat.add(chainOutbound, b.outboundPolicy()...)
	b.nat.add(chainOutput, b.outputPolicy(hop, overLoopback)...)
	b.nat.add("OUTPUT", rule("connections that the pod opens", Jump{Chain: chainOutput}, tcp))
}

// outputPolicy decides whose connections are the pod's own.
//
//	who    | to            | goes
//	anyone | a neighbour's link-local address (IPv6) | direct
//	proxy  | the app, as its inbound hop | direct
//	anyone | over loopback | as overLoopback says, or else direct
//	proxy  | anywhere else | direct: it is the end of the interception
//	app    | anywhere else | as outboundPolicy says
func (b *builder) outputPolicy(hop, overLoopback []Rule) []Rule {
	var rules []Rule
	for _, name := range b.spec.ExcludeInterfaces {
		rules = append(rules, rule("interface left alone", Return, OutInterface{Name: name}))
	}
	rules = append(rules, b.neighbours()...)
	rules = append(rules, forPorts("outbound ports left alone", Return, tcp, b.spec.OutboundExcludePorts)...)
	rules = append(rules, hop...)
	if b.capturesDNS() {
		rules = append(rules, b.leaveAlone(tcp, port(tcp, dnsPort))...)
		rules = append(rules, rule("DNS queries over tcp", Jump{Chain: chainDNSOutput}, tcp, port(tcp, dnsPort)))
	}
	rules = append(rules, overLoopback...)
	rules = append(rules, rule("the pod talks to itself", Return, outLoopback))
	rules = append(rules, b.leaveAlone()...)
	return append(rules, b.ofApp("connections of the app", Jump{Chain: chainOutbound})...)
}

// neighbours leaves link-local IPv6 destinations alone. They are addresses on
// one link only, to which the kernel binds a socket: it could not be taken
// to the proxy, which listens on another, nor the proxy tell which link is meant.
func (b *builder) neighbours() []Rule {
	if b.family == IPv4 {
		return nil
	}
	return []Rule{rule("a neighbour's link-local address: left alone", Return, Destination{Prefix: linkLocal})}
}

var linkLocal = netip.MustParsePrefix("fe80::/10")

// to matches what goes to an address of the prefix. All addresses are no match
// at all: iptables does not keep -d 0.0.0.0/0.
func to(prefix netip.Prefix) []Match {
	if prefix.Bits() == 0 {
		return nil
	}
	return []Match{Destination{Prefix: prefix}}
}

// outboundPolicy decides which destinations go to the proxy. What is left
// alone comes first: it is stronger than what is to be intercepted.
func (b *builder) outboundPolicy() []Rule {
	var rules []Rule
	for _, prefix := range b.prefixesOf(b.spec.OutboundExcludeCIDRs) {
		rules = append(rules, rule("destination left alone", Return, to(prefix)...))
	}
	rules = append(rules, forPorts("outbound ports to intercept", Jump{Chain: chainRedirect}, tcp, b.spec.OutboundPorts)...)
	if b.spec.OutboundCIDRs.All {
		return append(rules, rule("every other destination", Jump{Chain: chainRedirect}))
	}
	for _, prefix := range b.prefixesOf(b.spec.OutboundCIDRs.Prefixes) {
		rules = append(rules, rule("destination to intercept", Jump{Chain: chainRedirect}, to(prefix)...))
	}
	return rules
}
