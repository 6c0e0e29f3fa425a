package ruleset

// tproxy builds SystemTProxy. mangle takes inbound connections to the proxy
// without touching their addresses, nat takes the pod's own to it.
//
// The proxy goes on to the app from the client's address, so the app's answers
// have to be kept from leaving for the client: they carry the mark of that
// hop's connection and are routed back in.
func (b *builder) tproxy() {
	b.tproxyMangle()
	b.tproxyNAT()
	b.routing.Rules = []PolicyRule{{Mark: b.spec.Mark, Mask: allBits, Table: b.spec.RouteTable}}
	b.routing.Routes = []LocalRoute{{Table: b.spec.RouteTable}}
	if b.spec.UDPPorts != nil {
		b.tproxyUDP()
	}
	for _, r := range forPorts("clients are to use tcp", Reject{With: b.family.portUnreachable()}, udp, b.spec.RejectUDPPorts,
		InInterface{Name: loopbackName, Not: true}) {
		b.filter.add("INPUT", r)
	}
}

// tproxyMangle takes tcp. mangle sees every packet, but only the segment that
// opens a connection enters our chains; of an established one each packet
// meets the jump alone on its way in, and the jump and one rule on its way
// out. The SYN rather than conntrack's NEW decides, because a SYN that comes
// upon a stale conntrack entry is ESTABLISHED to it, and would reach the app
// past the proxy.
func (b *builder) tproxyMangle() {
	b.mangle.add(chainTProxy, b.toProxy(tcp))
	b.mangle.add(chainInbound, b.tproxyInbound()...)
	b.mangle.add(chainInbound, b.inboundPolicy(chainTProxy)...)
	b.mangle.add(chainOutput, b.tproxyOutput()...)
	b.mangle.add("PREROUTING", rule("connections to the pod", Jump{Chain: chainInbound}, tcp, SYN{}))
	b.mangle.add("OUTPUT",
		b.keepAnswers(tcp),
		rule("connections over loopback", Jump{Chain: chainOutput}, outLoopback, tcp, SYN{}))
}

// toProxy gives packets to the proxy's inbound listener, and marks nothing: what
// comes in is the pod's own by its destination. A mark that has a route would
// be used for more than that: to look up the packet's source, where the pod's
// src_valid_mark is set (IPv4), and as the mark of the accepted socket, where
// tcp_fwmark_accept is. The packet would be dropped, or the proxy's answers
// routed back in.
func (b *builder) toProxy(protocol Protocol) Rule {
	return rule("to the inbound listener of the proxy, addresses kept",
		TProxy{Port: b.spec.InboundPort, Address: b.family.unspecified()},
		b.beyondLoopback(), protocol)
}

// keepAnswers routes the app's answers to the proxy's hop back in. They are
// about to leave by some interface, for the client. What goes over lo already
// is the hop itself, whose packets would each be routed anew for a mark that
// they can do without.
func (b *builder) keepAnswers(protocol Protocol) Rule {
	return rule("answers to the inbound hop of the proxy stay in the pod", RestoreMark{},
		OutInterface{Name: loopbackName, Not: true}, protocol, Mark{Connection: true, Value: b.spec.Mark, Mask: allBits})
}

// selfMark marks the proxy's calls to its own pod's address, which come in
// over lo like the app's but are to be intercepted.
func (b *builder) selfMark() uint32 { return b.spec.Mark + 1 }

// tproxyInbound tells apart what comes in before its port is looked at. Marks
// do not cross from one namespace to another, so a mark means that the packet
// was made in this pod.
func (b *builder) tproxyInbound() []Rule {
	notSelf := marked(b.selfMark())
	notSelf.Not = true
	rules := []Rule{
		rule("remember the inbound hop of the proxy", SaveMark{}, inLoopback, marked(b.spec.Mark)),
		rule("inbound hop of the proxy to the app", Return, inLoopback, marked(b.spec.Mark)),
		rule("inbound hop of the proxy to the app", Return, b.fromPassthrough(), inLoopback),
		rule("the pod talks to itself", Return, inLoopback, notSelf),
	}
	for _, name := range b.spec.ExcludeInterfaces {
		rules = append(rules, rule("interface left alone", Return, InInterface{Name: name}))
	}
	for _, name := range b.spec.VirtualInterfaces {
		rules = append(rules, rule("connections of a virtual machine are outbound", Return, InInterface{Name: name}))
	}
	return rules
}

// tproxyOutput tells the proxy's connections over loopback apart.
//
//	source      | mark         | it is                       | gets
//	not ours    | any          | the inbound hop to the app  | Mark, also from a proxy that cannot set it
//	ours        | Mark         | the inbound hop to the app  | stays
//	ours        | none         | a call to its own pod       | Mark+1
func (b *builder) tproxyOutput() []Rule {
	var rules []Rule
	for _, id := range b.proxy() {
		rules = append(rules, rule("inbound hop of the proxy, by its source ("+id.words+")",
			SetMark{Value: b.spec.Mark, Mask: allBits}, id.match, AddressType{Not: true}))
	}
	rules = append(rules, rule("inbound hop of the proxy, by its mark", Return, marked(b.spec.Mark)))
	for _, id := range b.proxy() {
		rules = append(rules, rule("the proxy ("+id.words+") calls its own pod: inbound",
			SetMark{Value: b.selfMark(), Mask: allBits}, b.beyondLoopback(), id.match))
	}
	return rules
}

// tproxyNAT takes the pod's own connections to the proxy. The proxy's calls to
// its own pod are left to mangle, by their mark: a proxy that is reached by
// TPROXY looks for the original destination at its own socket, where REDIRECT
// would have written the listener's address. Nothing over lo is for nat then,
// and the inbound hop cannot come back to the proxy, whatever its identity.
func (b *builder) tproxyNAT() {
	b.addOutbound(nil, nil)
	if len(b.spec.VirtualInterfaces) > 0 {
		b.nat.add(chainInbound, b.interfacePolicy()...)
		b.nat.add("PREROUTING", rule("connections of virtual machines", Jump{Chain: chainInbound}, tcp))
	}
}

// tproxyUDP takes udp to chosen ports. udp has no SYN: every packet to these
// ports is looked at, and the socket that it belongs to found by TPROXY.
func (b *builder) tproxyUDP() {
	b.mangle.add(chainUDP, b.tproxyInbound()...)
	b.mangle.add(chainUDP, b.toProxy(udp))
	for _, r := range forPorts("udp to the pod", Jump{Chain: chainUDP}, udp, b.spec.UDPPorts) {
		b.mangle.add("PREROUTING", r)
	}
	b.mangle.add("OUTPUT", b.keepAnswers(udp))
	for _, r := range forPorts("udp over loopback", Jump{Chain: chainOutput}, udp, b.spec.UDPPorts, outLoopback) {
		b.mangle.add("OUTPUT", r)
	}
}
