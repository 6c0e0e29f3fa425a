package ruleset

// legacy builds SystemLegacy: one port of the proxy for both directions, and
// the proxy's inbound hop over 127.0.0.1. A connection to the pod's own
// address is inbound whoever makes it; that hop alone is not.
func (b *builder) legacy() {
	b.addInbound(b.spec.OutboundPort)
	toPod := rule("connections to the own pod are inbound", Jump{Chain: chainInRedirect}, b.beyondLoopback(), outLoopback)
	b.addOutbound(nil, []Rule{toPod})
}
