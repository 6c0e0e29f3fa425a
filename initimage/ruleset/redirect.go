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
	}
}

// selfCalls sends the proxy's calls to its own pod's address inbound, as a
// call from another pod would go. Its hop to the app, which goes to that
// address too, is told from them by its source.
func (b *builder) selfCalls() []Rule {
	var rules []Rule
	for _, id := range b.proxy() {
		rules = append(rules, rule("the proxy ("+id.words+") calls its own pod: inbound", Jump{chainInRedirect},
			b.toLoopback(true), outLoopback, id.match))
	}
	return rules
}
