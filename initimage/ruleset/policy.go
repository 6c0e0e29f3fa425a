package ruleset

import (
	"net/netip"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// addInbound adds to nat the chains that send connections to the pod to a port of
// the proxy, and the jump to them.
func (b *builder) addInbound(proxyPort uint16, head ...Rule) {
	b.nat.add(chainInRedirect, rule("to the inbound listener of the proxy", Redirect{proxyPort}, tcp))
	b.nat.add(chainInbound, b.interfacePolicy()...)
	b.nat.add(chainInbound, head...)
	b.nat.add(chainInbound, b.inboundPolicy(Return, chainInRedirect)...)
	b.nat.add("PREROUTING", rule("connections to the pod", Jump{Chain: chainInbound}, tcp))
}

// guardLoopback blocks what a neighbour on the link sends to an address that means
// whichever host it is used on. nat would give such a packet an address of the pod,
// and the proxy would connect to the original one.
//
//	destination      | what the kernel does with it, unless it is rewritten | gets
//	127.0.0.0/8      | drops it, but delivers it if route_localnet is set    | Nowhere
//	0.0.0.0          | drops it                                              | no new address
//	::, ::ffff:0:0/96 | has no route to it                                   | no new address
//	::1              | drops it before netfilter                             | no rule
//
// route_localnet is set in the pods of most clusters: kube-proxy sets it on the
// node, and new namespaces copy it. The kernel drops a source among these addresses
// in any case.
//
// The rules are in nat, which sees only the first packet of a connection. Packets
// of an established connection meet none of them.
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

// inboundPolicy returns the rules that decide which ports of the pod go to the
// proxy, by a jump to the chain that takes them there. Exclusions come first.
func (b *builder) inboundPolicy(exclude Target, intercept string) []Rule {
	var rules []Rule
	if excludesTunnel(b.spec) {
		rules = append(rules, rule("the tunnel port belongs to the proxy", exclude, tcp, port(tcp, b.spec.TunnelPort)))
	}
	if excludesSSH(b.spec) {
		rules = append(rules, rule("ssh, left alone unless its port is listed: a way in for repairs", exclude, tcp,
			port(tcp, interception.SSHPort)))
	}
	rules = append(rules, forPorts("inbound ports left alone, by setting or by default", exclude, tcp, b.spec.InboundExcludePorts)...)
	if b.spec.InboundPorts.All {
		return append(rules, rule("every other inbound port", Jump{Chain: intercept}, tcp))
	}
	return append(rules, forPorts("inbound ports to intercept", Jump{Chain: intercept}, tcp, b.spec.InboundPorts.Ranges)...)
}

func excludesTunnel(spec interception.Spec) bool {
	return spec.System != interception.SystemLegacy && spec.TunnelPort != 0
}

// excludesSSH reports whether the system excludes ssh, because all ports are
// intercepted and no list of ports does so already.
func excludesSSH(spec interception.Spec) bool {
	excludes := spec.System == interception.SystemRedirect || spec.System == interception.SystemTProxy
	return excludes && spec.InboundPorts.All && !spec.InboundExcludePorts.Contains(interception.SSHPort)
}

// interfacePolicy returns the rules that look at interfaces: some are excluded, and
// what virtual machines send is outbound.
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

// addOutbound adds to nat the chains that send the pod's own connections to the
// proxy, and the jump to them. The hop rules are for the proxy's connections to the
// app. The overLoopback rules are for what goes over lo and is not excluded.
func (b *builder) addOutbound(hop, overLoopback []Rule) {
	b.nat.add(chainRedirect, rule("to the outbound listener of the proxy", Redirect{b.spec.OutboundPort}, tcp))
	b.nat.add(chainOutbound, b.outboundPolicy()...)
	b.nat.add(chainOutput, b.outputPolicy(hop, overLoopback)...)
	b.nat.add("OUTPUT", rule("connections that the pod opens", Jump{Chain: chainOutput}, tcp))
}

// outputPolicy returns the rules that decide whose connections are intercepted.
//
//	who    | to            | goes
//	anyone | a neighbour's link-local address (IPv6) | direct
//	proxy  | the app, as its inbound hop | direct
//	anyone | over loopback | as overLoopback decides, or else direct
//	proxy  | anywhere else | direct: it ends the interception
//	app    | anywhere else | as outboundPolicy decides
func (b *builder) outputPolicy(hop, overLoopback []Rule) []Rule {
	rules := append(b.excludeOutput(), hop...)
	if b.capturesDNS() {
		rules = append(rules, b.exclude(tcp, port(tcp, dnsPort))...)
		rules = append(rules, rule("DNS queries over tcp", Jump{Chain: chainDNSOutput}, tcp, port(tcp, dnsPort)))
	}
	rules = append(rules, overLoopback...)
	rules = append(rules, rule("the pod talks to itself", Return, outLoopback))
	rules = append(rules, b.exclude()...)
	return append(rules, b.forApp("connections of the app", Jump{Chain: chainOutbound})...)
}

// excludeOutput returns the rules that leave connections alone whoever opens them.
func (b *builder) excludeOutput() []Rule {
	var rules []Rule
	for _, name := range b.spec.ExcludeInterfaces {
		rules = append(rules, rule("interface left alone", Return, OutInterface{Name: name}))
	}
	rules = append(rules, b.excludeLinkLocal()...)
	return append(rules, forPorts("outbound ports left alone", Return, tcp, b.spec.OutboundExcludePorts)...)
}

// excludeLinkLocal leaves link-local IPv6 destinations alone. Such an address is
// valid on one link, to which the kernel binds the socket. The packet could not
// reach the proxy, which listens on another link, and the proxy could not tell
// which link is meant.
func (b *builder) excludeLinkLocal() []Rule {
	if b.family == IPv4 {
		return nil
	}
	return []Rule{rule("a neighbour's link-local address: left alone", Return, Destination{Prefix: linkLocal})}
}

var linkLocal = netip.MustParsePrefix("fe80::/10")

// to matches destinations of the prefix. All addresses need no match at all:
// iptables does not keep -d 0.0.0.0/0.
func to(prefix netip.Prefix) []Match {
	if prefix.Bits() == 0 {
		return nil
	}
	return []Match{Destination{Prefix: prefix}}
}

// outboundPolicy returns the rules that decide which destinations go to the proxy.
// Exclusions come first and win.
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
