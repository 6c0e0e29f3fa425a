package ruleset

// legacy builds SystemLegacy: the proxy has one port for both directions and
// connects to the app over 127.0.0.1. Any other connection to the pod's own address
// is inbound, whoever makes it.
func (b *builder) legacy() {
	b.addInbound(b.spec.OutboundPort)
	toPod := rule("connections to the own pod are inbound", Jump{Chain: chainInRedirect}, b.beyondLoopback(), outLoopback)
	b.addOutbound(nil, []Rule{toPod})
}
