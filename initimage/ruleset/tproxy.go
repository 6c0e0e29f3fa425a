package ruleset

// tproxy builds SystemTProxy. mangle sends inbound connections to the proxy and
// keeps their addresses; nat sends the pod's own to it.
//
// The proxy connects to the app from the client's address. So the app's answers
// must not leave for the client: the mark of the proxy's connection routes them
// back in.
func (b *builder) tproxy() {
	if b.spec.NoConntrack {
		b.tproxyByMarks()
		return
	}
	b.tproxyMangle()
	b.tproxyNAT()
	b.routing.Rules = []PolicyRule{{Mark: b.spec.Mark, Mask: allBits, Table: b.spec.RouteTable}}
	b.routing.Routes = []LocalRoute{{Table: b.spec.RouteTable}}
	if b.spec.UDPPorts != nil {
		b.tproxyUDP()
	}
	b.rejectUDP()
}

// rejectUDP has clients use tcp instead of some udp ports.
func (b *builder) rejectUDP() {
	for _, r := range forPorts("clients are to use tcp", Reject{With: b.family.portUnreachable()}, udp, b.spec.RejectUDPPorts,
		InInterface{Name: loopbackName, Not: true}) {
		b.filter.add("INPUT", r)
	}
}

// tproxyMangle intercepts tcp. mangle sees every packet, but only the segment that
// opens a connection enters our chains. A packet of an established connection meets
// the jump on its way in, and the jump and one rule on its way out. The rules match
// the SYN and not conntrack's NEW: to conntrack a SYN that hits a stale entry is
// ESTABLISHED, and it would bypass the proxy.
func (b *builder) tproxyMangle() {
	b.mangle.add(chainTProxy, b.toProxy(tcp))
	b.mangle.add(chainInbound, b.tproxyInbound()...)
	b.mangle.add(chainInbound, b.inboundPolicy(Return, chainTProxy)...)
	b.mangle.add(chainOutput, b.tproxyOutput()...)
	b.mangle.add("PREROUTING", rule("connections to the pod", Jump{Chain: chainInbound}, tcp, SYN{}))
	b.mangle.add("OUTPUT",
		b.keepAnswers(tcp),
		rule("connections over loopback", Jump{Chain: chainOutput}, outLoopback, tcp, SYN{}))
}

// toProxy gives packets to the proxy's inbound listener and sets no mark: their
// destination is local anyway. A mark with a route would also be used to look up
// the packet's source if the pod's src_valid_mark is set (IPv4), and would become
// the mark of the accepted socket if tcp_fwmark_accept is. Then the packet would be
// dropped, or the proxy's answers routed back in.
func (b *builder) toProxy(protocol Protocol) Rule {
	return rule("to the inbound listener of the proxy, addresses kept",
		TProxy{Port: b.spec.InboundPort, Address: b.family.unspecified()},
		b.beyondLoopback(), protocol)
}

// keepAnswers routes the app's answers to the proxy's inbound hop back in. They are
// about to leave for the client by some interface. What goes over lo already is the
// hop itself: it needs no mark, and setting one would route each of its packets
// again.
func (b *builder) keepAnswers(protocol Protocol) Rule {
	return rule("answers to the inbound hop of the proxy stay in the pod", RestoreMark{},
		OutInterface{Name: loopbackName, Not: true}, protocol, Mark{Connection: true, Value: b.spec.Mark, Mask: allBits})
}

// selfMark returns the mark of the proxy's calls to its own pod's address. They
// come in over lo like the app's, but are intercepted.
func (b *builder) selfMark() uint32 { return b.spec.Mark + 1 }

// tproxyInbound returns the rules that sort inbound packets before their port is
// looked at. Marks do not cross namespaces, so a marked packet was made in this
// pod.
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

// tproxyOutput returns the rules that sort the proxy's connections over loopback.
//
//	source      | mark         | it is                       | gets
//	not ours    | any          | the inbound hop to the app  | Mark, also from a proxy that cannot set it
//	ours        | Mark         | the inbound hop to the app  | stays
//	ours        | none         | a call to its own pod       | Mark+1
func (b *builder) tproxyOutput() []Rule {
	var rules []Rule
	for _, id := range b.proxy() {
		rules = append(rules, rule("inbound hop of the proxy, by its source ("+id.description+")",
			SetMark{Value: b.spec.Mark, Mask: allBits}, id.match, AddressType{Not: true}))
	}
	rules = append(rules, rule("inbound hop of the proxy, by its mark", Return, marked(b.spec.Mark)))
	for _, id := range b.proxy() {
		rules = append(rules, rule("the proxy ("+id.description+") calls its own pod: inbound",
			SetMark{Value: b.selfMark(), Mask: allBits}, b.beyondLoopback(), id.match))
	}
	return rules
}

// tproxyNAT sends the pod's own connections to the proxy. The proxy's calls to its
// own pod are left to mangle, by their mark: a proxy that is reached by TPROXY
// reads the original destination from its own socket, where REDIRECT would have
// written the listener's address. So nat does nothing over lo, and the inbound hop
// cannot come back to the proxy, whatever its identity.
func (b *builder) tproxyNAT() {
	b.addOutbound(nil, nil)
	if len(b.spec.VirtualInterfaces) > 0 {
		b.nat.add(chainInbound, b.interfacePolicy()...)
		b.nat.add("PREROUTING", rule("connections of virtual machines", Jump{Chain: chainInbound}, tcp))
	}
}

// tproxyUDP sends udp to chosen ports to the proxy. udp has no SYN: every packet to
// these ports is looked at, and TPROXY finds its socket.
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
