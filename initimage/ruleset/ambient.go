package ruleset

import "github.com/shunt-dev/shunt/initimage/interception"

// ambient builds SystemAmbient. The proxy is recognized by its packet mark, not by
// a user. It connects to the app from the client's own address; the mark of that
// connection routes the app's answers back in.
func (b *builder) ambient() {
	proxy := Mark{Value: b.spec.Mark, Mask: interception.AmbientMask}
	reply := Mark{Value: interception.AmbientReply, Mask: interception.AmbientMask}
	replyConnection := reply
	replyConnection.Connection = true
	b.mangle.add("PREROUTING", rule("remember the inbound hop of the proxy",
		SetMark{Connection: true, Value: interception.AmbientReply, Mask: interception.AmbientMask}, proxy))
	b.mangle.add("OUTPUT", rule("answers to the inbound hop of the proxy stay in the pod", RestoreMark{}, replyConnection))
	b.addInbound(b.spec.InboundPort,
		rule("probes of the node", Return, Source{Prefix: b.family.hostProbe()}),
		rule("inbound hop of the proxy to the app", Return, proxy))
	b.addOutbound([]Rule{
		rule("answers to probes of the node", Return, Destination{Prefix: b.family.hostProbe()}),
		rule("answers to the inbound hop of the proxy", Return, reply),
	}, nil)
	b.routing.Rules = []PolicyRule{{Mark: interception.AmbientReply, Mask: interception.AmbientMask, Table: b.spec.RouteTable}}
	b.routing.Routes = []LocalRoute{{Table: b.spec.RouteTable}}
}
