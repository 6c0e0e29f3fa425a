package ruleset

// Marks of SystemAmbient, as Istio's node agent and its proxy use them. The
// proxy's sockets carry Spec.Mark; the conntrack entry of a connection that
// the proxy made to the pod carries ambientReply, and so do the answers.
const (
	ambientMask  = 0xfff
	ambientReply = 0x111
)

// ambient builds SystemAmbient. The proxy is known by its packet mark, not by
// a user, and goes on to the app from the client's own address, so that the
// app's answers are routed back in by the mark of that connection.
func (b *builder) ambient() {
	proxy := Mark{Value: b.spec.Mark, Mask: ambientMask}
	reply := Mark{Value: ambientReply, Mask: ambientMask}
	replyConnection := reply
	replyConnection.Connection = true
	b.mangle.add("PREROUTING", rule("remember the inbound hop of the proxy",
		SetMark{Connection: true, Value: ambientReply, Mask: ambientMask}, proxy))
	b.mangle.add("OUTPUT", rule("answers to the inbound hop of the proxy stay in the pod", RestoreMark{}, replyConnection))
	b.addInbound(b.spec.InboundPort,
		rule("probes of the node", Return, Source{Prefix: b.family.hostProbe()}),
		rule("inbound hop of the proxy to the app", Return, proxy),
		rule("the pod talks to itself", Return, b.toLoopback(false)))
	b.addOutbound([]Rule{
		rule("answers to probes of the node", Return, Destination{Prefix: b.family.hostProbe()}),
		rule("answers to the inbound hop of the proxy", Return, reply),
	}, nil)
	b.routing.Rules = []PolicyRule{{Mark: ambientReply, Mask: ambientMask, Table: b.spec.RouteTable}}
	b.routing.Routes = []LocalRoute{{Table: b.spec.RouteTable}}
}
