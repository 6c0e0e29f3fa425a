package ruleset

// redirect builds SystemRedirect, all of it in nat. nat sees the first packet
// of a connection only, so none of its rules costs an established connection
// anything.
func (b *builder) redirect() {
	b.addInbound(b.spec.InboundPort)
	hop := rule("inbound hop of the proxy to the app", Return, b.fromPassthrough(), outLoopback)
	b.addOutbound([]Rule{hop}, b.selfCalls())
	if b.family == IPv6 {
		b.routing.Addresses = append(b.routing.Addresses, b.family.passthroughSource())
		b.routeBoundHop()
	}
}

// routeBoundHop gives the proxy's hop to the app a route where its socket is
// bound to lo. All hops come from one address. For each connection that they
// close, a source port waits out TIME_WAIT, and the kernel hands such a port
// out again only over loopback: where an end has a loopback address, as
// 127.0.0.6 is, or the socket is bound to lo (tcp_tw_reuse in ip-sysctl). An
// IPv6 socket that is bound to lo, though, does not find the local route of an
// address that another interface has.
//
// The rule takes the packets of such sockets alone: neither those of a proxy
// that does not bind to lo, nor what a neighbour sends from a forged ::6.
func (b *builder) routeBoundHop() {
	b.routing.Rules = []PolicyRule{
		{Source: b.family.passthroughSource(), OutInterface: loopbackName, Table: b.spec.RouteTable},
	}
	b.routing.Routes = []LocalRoute{{Table: b.spec.RouteTable}}
}

// selfCalls sends the proxy's calls to its own pod's address inbound, as a
// call from another pod would go. Its hop to the app, which goes to that
// address too, is told from them by its source.
func (b *builder) selfCalls() []Rule {
	var rules []Rule
	for _, id := range b.proxy() {
		rules = append(rules, rule("the proxy ("+id.words+") calls its own pod: inbound", Jump{Chain: chainInRedirect},
			b.beyondLoopback(), outLoopback, id.match))
	}
	return rules
}
