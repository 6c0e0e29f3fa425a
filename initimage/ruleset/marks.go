package ruleset

import "github.com/shunt-dev/shunt/initimage/interception"

// tproxyByMarks builds SystemTProxy without conntrack. What a packet belongs to is
// the mark of its socket: a socket that the kernel accepts inherits the mark of the
// segment that opened it (tcp_fwmark_accept), and what the kernel answers without a
// socket has the mark of what it answers (fwmark_reflect).
//
//	mark        | is given to                          | by                    | where to it goes
//	Hop         | the proxy's hop to the app           | the proxy, its source | to the app, and the answers back in
//	Self        | the proxy's calls to its own pod     | its mark, its owner   | as if from a client
//	Intercepted | connections to the pod               | PREROUTING            | to the proxy
//	Direct      | connections to ports left alone      | PREROUTING            | to the app
//	Outbound    | connections of the app               | OUTPUT                | over lo, to the proxy
//	Proxy       | the proxy's own connections          | the proxy             | out
//
// Every packet gets its mark, not only the SYN. With a SYN cookie, which
// tcp_syncookies=2 forces on all, the kernel makes the socket when the ACK comes: it
// looks for a listener then, and takes the mark of the ACK. A rule for the SYN alone
// would let that ACK run to the app, past the proxy. And a socket that is closed but
// still sends has no owner, so that OUTPUT decides by the destination alone.
func (b *builder) tproxyByMarks() {
	marks := b.spec.Marks()
	b.inboundByMarks(marks)
	b.outputByMarks(marks)
	for _, mark := range []uint32{marks.Hop, marks.Outbound} {
		b.routing.Rules = append(b.routing.Rules, PolicyRule{Mark: mark, Mask: allBits, Table: b.spec.RouteTable})
	}
	b.routing.Routes = []LocalRoute{{Table: b.spec.RouteTable}}
	b.routing.Settings = b.family.MarkSettings()
	b.rejectUDP()
}

// MarkSettings returns the sysctls that let sockets inherit marks, sorted. One of them
// concerns both families.
func (f Family) MarkSettings() []string {
	if f == IPv6 {
		return []string{acceptMarks, "net.ipv6.fwmark_reflect"}
	}
	return []string{"net.ipv4.fwmark_reflect", acceptMarks}
}

// ByMarks reports whether the set is that of SystemTProxy without conntrack, as it
// was built or read back.
func (rs RuleSet) ByMarks() bool {
	for step := range rs.Rules() {
		if proxied, is := step.Rule.Target.(TProxy); is && proxied.Mask != 0 && step.Rule.Owned() {
			return true
		}
	}
	return false
}

// acceptMarks is the sysctl by which an accepted socket has the mark of the segment
// that opened it.
const acceptMarks = "net.ipv4.tcp_fwmark_accept"

// inboundByMarks takes connections to the pod, and those of the app that OUTPUT has
// turned round, to the proxy.
//
// A packet from outside that a marked socket awaits meets two rules and is left as it
// is. It could go on to tproxy, which gives a packet to the socket that awaits it
// before it looks for a listener. But then the kernel would not use the route that
// the socket has found before. A SYN, the ACK of a cookie and what TIME_WAIT awaits
// have no such socket.
//
// The hop of a proxy that sets no mark is marked where it comes in: a mark that is
// set in OUTPUT has each packet routed again.
func (b *builder) inboundByMarks(marks interception.Marks) {
	b.mangle.add(chainTProxy, rule("to the inbound listener of the proxy, addresses kept",
		TProxy{Port: b.spec.InboundPort, Address: b.family.unspecified(), Mark: marks.Intercepted, Mask: allBits}, tcp))
	b.mangle.add(chainDirect,
		rule("not intercepted: the answers will have this mark", SetMark{Value: marks.Direct, Mask: allBits}),
		rule("not intercepted", Accept))
	for _, name := range b.spec.ExcludeInterfaces {
		b.mangle.add(chainInbound, rule("interface left alone", Jump{Chain: chainDirect}, InInterface{Name: name}))
	}
	b.mangle.add(chainInbound, b.inboundPolicy(Jump{Chain: chainDirect}, chainTProxy)...)
	if !b.spec.InboundPorts.All {
		b.mangle.add(chainInbound, rule("every other inbound port: left alone", Jump{Chain: chainDirect}))
	}
	byItsSource := func(m Mark) Rule {
		return rule("inbound hop of the proxy, by its source", SetMark{Value: marks.Hop, Mask: allBits}, m, AddressType{Not: true})
	}
	b.mangle.add(chainInLoopback,
		rule("inbound hop of the proxy, and the app's answers to it", Return, marked(marks.Hop)),
		byItsSource(marked(0)),
		rule("connections of the app: to the outbound listener of the proxy", TProxy{
			Port: b.spec.OutboundPort, Address: b.family.unspecified(), Mark: marks.Outbound, Mask: allBits,
		}, tcp, marked(marks.Outbound)),
		rule("the proxy calls its own pod: inbound", Jump{Chain: chainInbound}, marked(marks.Self)),
		byItsSource(marked(marks.Proxy)))
	b.mangle.add("PREROUTING",
		rule("what comes over loopback is told by its mark", Jump{Chain: chainInLoopback, Goto: true}, tcp, inLoopback),
		rule("its socket has a mark: all is decided", Accept, tcp, SocketMark{Value: marks.Settled(), Mask: interception.SettledMask}))
	if b.family == IPv4 {
		b.mangle.add("PREROUTING", rule("loopback destination from outside", Drop,
			Destination{Prefix: loopback4}, InInterface{Name: loopbackName, Not: true}))
	}
	b.mangle.add("PREROUTING", rule("packets to the pod", Jump{Chain: chainInbound}, tcp))
}

// outputByMarks sorts what the pod sends. Most of it has a mark. What has none and
// does not stay in the pod is the app's, or of a process with an id of the proxy.
func (b *builder) outputByMarks(marks interception.Marks) {
	b.mangle.add(chainRedirect, rule("to the outbound listener of the proxy, by way of loopback",
		SetMark{Value: marks.Outbound, Mask: allBits}))
	b.mangle.add(chainOutbound, b.outboundPolicy()...)
	b.mangle.add(chainOutput, b.excludeOutput()...)
	b.mangle.add(chainOutput, b.exclude()...)
	b.mangle.add(chainOutput, rule("connections of the app", Jump{Chain: chainOutbound}))
	b.mangle.add(chainOutLoopback, b.outputOverLoopback(marks)...)
	b.mangle.add("OUTPUT",
		rule("answers to connections from outside, and the proxy's own connections", Accept, tcp,
			Mark{Value: marks.Settled(), Mask: interception.SettledMask}, OutInterface{Name: loopbackName, Not: true}),
		rule("the app's answers to the inbound hop of the proxy", Accept, tcp, marked(marks.Hop)),
		rule("packets over loopback", Jump{Chain: chainOutLoopback, Goto: true}, tcp, outLoopback),
		rule("packets that the pod sends", Jump{Chain: chainOutput}, tcp))
}

// outputOverLoopback returns the rules that mark the proxy's calls to its own pod.
//
//	source     | mark     | owner   | it is                       | gets
//	any        | Outbound | any     | the proxy's answer          | stays: the first rule spares it the next one's lookup
//	not ours   | any      | any     | the inbound hop to the app  | stays: PREROUTING marks it
//	127.0.0.6  | any      | any     | the inbound hop to the app  | stays
//	ours       | Proxy    | any     | a call to its own pod       | Self
//	ours       | none     | proxy   | a call to its own pod       | Self
func (b *builder) outputOverLoopback(marks interception.Marks) []Rule {
	self := SetMark{Value: marks.Self, Mask: allBits}
	rules := []Rule{
		rule("the proxy answers the app", Return, marked(marks.Outbound)),
		rule("inbound hop of the proxy, by its source", Return, AddressType{Not: true}),
		rule("inbound hop of the proxy to the app", Return, b.fromPassthrough()),
		rule("the proxy (mark) calls its own pod: inbound", self, b.beyondLoopback(), marked(marks.Proxy)),
	}
	for _, id := range b.proxy() {
		rules = append(rules, rule("the proxy ("+id.description+") calls its own pod: inbound", self,
			b.beyondLoopback(), marked(0), id.match))
	}
	return rules
}
