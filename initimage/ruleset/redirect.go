package ruleset

// redirect builds SystemRedirect, all of it in nat. nat sees only the first packet
// of a connection, so its rules cost an established connection nothing.
func (b *builder) redirect() {
	b.addInbound(b.spec.InboundPort)
	hop := rule("inbound hop of the proxy to the app", Return, b.fromPassthrough(), outLoopback)
	b.addOutbound([]Rule{hop}, b.selfCalls())
	if b.family == IPv6 {
		b.routing.Addresses = append(b.routing.Addresses, b.family.passthroughSource())
		b.routeBoundHop()
	}
}

// routeBoundHop adds a route for the proxy's connections to the app from sockets
// that are bound to lo. All of them come from one address. Each one that closes
// leaves a source port in TIME_WAIT, and the kernel reuses such a port early only
// over loopback: if an end has a loopback address, as 127.0.0.6 is, or the socket
// is bound to lo (tcp_tw_reuse in ip-sysctl). But an IPv6 socket that is bound to
// lo does not find the local route of an address of another interface.
//
// The rule matches only packets of such sockets: neither those of a proxy that does
// not bind to lo, nor what a neighbour sends from a forged ::6.
func (b *builder) routeBoundHop() {
	b.routing.Rules = []PolicyRule{
		{Source: b.family.passthroughSource(), OutInterface: loopbackName, Table: b.spec.RouteTable},
	}
	b.routing.Routes = []LocalRoute{{Table: b.spec.RouteTable}}
}

// selfCalls returns the rules that make the proxy's calls to its own pod's address
// inbound, like a call from another pod. The proxy's connections to the app go to
// that address too, but have another source.
func (b *builder) selfCalls() []Rule {
	var rules []Rule
	for _, id := range b.proxy() {
		rules = append(rules, rule("the proxy ("+id.description+") calls its own pod: inbound", Jump{Chain: chainInRedirect},
			b.beyondLoopback(), outLoopback, id.match))
	}
	return rules
}
