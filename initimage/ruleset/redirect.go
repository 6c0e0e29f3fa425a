package ruleset

import "github.com/shunt-dev/shunt/initimage/interception"

// redirectNAT is the one table of SystemRedirect. nat sees the first packet of
// a connection only, so none of its rules costs an established connection
// anything.
func (b *builder) redirectNAT() Table {
	t := Table{Name: "nat"}
	t.add(chainInRedirect, rule("to the inbound listener of the proxy", Redirect{b.spec.InboundPort}, tcp))
	t.add(chainInbound, b.inboundPolicy(chainInRedirect)...)
	b.addOutbound(&t, b.selfCalls())
	t.add("PREROUTING", rule("connections to the pod", Jump{chainInbound}, tcp))
	return t
}

// inboundPolicy decides which of the connections that reach the pod go to the
// proxy, by a jump to the chain that takes them there.
func (b *builder) inboundPolicy(intercept string) []Rule {
	rules := b.interfacePolicy()
	rules = append(rules, rule("the tunnel port belongs to the proxy", Return,
		tcp, portMatch(b.spec.TunnelPort)))
	if b.spec.InboundPorts.All {
		rules = append(rules, rule("a way in past the proxy, for repairs", Return,
			tcp, portMatch(interception.SSHPort)))
	}
	rules = append(rules, forPorts("inbound ports left alone", Return, b.spec.InboundExcludePorts)...)
	if b.spec.InboundPorts.All {
		return append(rules, rule("every other inbound port", Jump{intercept}, tcp))
	}
	return append(rules, forPorts("inbound ports to intercept", Jump{intercept}, b.spec.InboundPorts.Ranges)...)
}

func portMatch(port uint16) Match {
	return DestinationPorts{Protocol: "tcp", Ranges: interception.PortRanges{{First: port, Last: port}}}
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
		rules = append(rules, forPorts("outbound ports left alone", Return, b.spec.OutboundExcludePorts, in)...)
		rules = append(rules,
			rule("connections of a virtual machine are outbound", Jump{chainOutbound}, in),
			rule("connections of a virtual machine are not inbound", Return, in))
	}
	return rules
}

// addOutbound adds the chains that take the pod's own connections to the
// proxy, and the jump to them.
func (b *builder) addOutbound(t *Table, overLoopback []Rule) {
	t.add(chainRedirect, rule("to the outbound listener of the proxy", Redirect{b.spec.OutboundPort}, tcp))
	t.add(chainOutbound, b.outboundPolicy()...)
	t.add(chainOutput, b.outputPolicy(overLoopback)...)
	t.add("OUTPUT", rule("connections that the pod opens", Jump{chainOutput}, tcp))
}

// outputPolicy decides whose connections are the pod's own.
//
//	who    | to            | goes
//	anyone | over loopback | as overLoopback says, or else direct
//	proxy  | anywhere else | direct: it is the end of the interception
//	app    | anywhere else | as outboundPolicy says
func (b *builder) outputPolicy(overLoopback []Rule) []Rule {
	var rules []Rule
	for _, name := range b.spec.ExcludeInterfaces {
		rules = append(rules, rule("interface left alone", Return, OutInterface{Name: name}))
	}
	rules = append(rules, forPorts("outbound ports left alone", Return, b.spec.OutboundExcludePorts)...)
	rules = append(rules, overLoopback...)
	rules = append(rules, rule("the pod talks to itself", Return, outLoopback))
	for _, owner := range b.owners() {
		rules = append(rules, rule("connections of the proxy itself ("+owner.describe()+")", Return, owner))
	}
	return append(rules, rule("connections of the app", Jump{chainOutbound}))
}

// selfCalls sends the proxy's calls to its own pod's address inbound, as a
// call from another pod would go. Its hop to the app, which goes to that
// address too, is told from them by its source.
func (b *builder) selfCalls() []Rule {
	rules := []Rule{rule("inbound hop of the proxy to the app", Return, b.fromPassthrough(), outLoopback)}
	for _, owner := range b.owners() {
		rules = append(rules, rule("the proxy ("+owner.describe()+") calls its own pod: inbound", Jump{chainInRedirect},
			b.toLoopback(true), outLoopback, owner))
	}
	return rules
}

// outboundPolicy decides which destinations go to the proxy. What is left
// alone comes first: it is stronger than what is to be intercepted.
func (b *builder) outboundPolicy() []Rule {
	var rules []Rule
	for _, prefix := range b.prefixesOf(b.spec.OutboundExcludeCIDRs) {
		rules = append(rules, rule("destination left alone", Return, Destination{Prefix: prefix}))
	}
	rules = append(rules, forPorts("outbound ports to intercept", Jump{chainRedirect}, b.spec.OutboundPorts)...)
	if b.spec.OutboundCIDRs.All {
		return append(rules, rule("every other destination", Jump{chainRedirect}))
	}
	for _, prefix := range b.prefixesOf(b.spec.OutboundCIDRs.Prefixes) {
		rules = append(rules, rule("destination to intercept", Jump{chainRedirect}, Destination{Prefix: prefix}))
	}
	return rules
}
