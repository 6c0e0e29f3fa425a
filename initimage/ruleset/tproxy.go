package ruleset

// tproxyMangle takes inbound connections to the proxy without touching their
// addresses. The proxy goes on to the app from the client's address, so the
// app's answers have to be kept from leaving for the client: they carry the
// mark of that hop's connection and are routed back in.
//
// mangle sees every packet. Only the segment that opens a connection enters
// our chains; of an established one each packet meets the jump alone on its
// way in, and the jump and one rule on its way out. The SYN rather than
// conntrack's NEW decides, because a SYN that comes upon a stale conntrack
// entry is ESTABLISHED to it, and would reach the app past the proxy.
func (b *builder) tproxyMangle() Table {
	t := Table{Name: "mangle"}
	t.add(chainTProxy, rule("to the inbound listener of the proxy, addresses kept",
		TProxy{Port: b.spec.InboundPort, Address: b.family.unspecified(), Mark: b.spec.Mark, Mask: allBits},
		b.toLoopback(true), tcp))
	t.add(chainInbound, b.tproxyInbound()...)
	t.add(chainOutput, b.tproxyOutput()...)
	t.add("PREROUTING", rule("connections to the pod", Jump{chainInbound}, tcp, SYN{}))
	t.add("OUTPUT",
		rule("answers to the inbound hop of the proxy stay in the pod", RestoreMark{}, tcp,
			Mark{Connection: true, Value: b.spec.Mark, Mask: allBits}),
		rule("connections over loopback", Jump{chainOutput}, outLoopback, tcp, SYN{}))
	return t
}

// selfMark marks the proxy's calls to its own pod's address, which come in
// over lo like the app's but are to be intercepted.
func (b *builder) selfMark() uint32 { return b.spec.Mark + 1 }

// tproxyInbound decides which connections that come in go to the proxy. Marks
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
	for _, name := range b.spec.VirtualInterfaces {
		rules = append(rules, rule("connections of a virtual machine are outbound", Return, InInterface{Name: name}))
	}
	without := *b
	without.spec.VirtualInterfaces = nil
	return append(rules, without.inboundPolicy(chainTProxy)...)
}

// tproxyOutput tells the proxy's connections over loopback apart.
//
//	source      | mark         | it is                       | gets
//	not ours    | any          | the inbound hop to the app  | Mark, also from a proxy that cannot set it
//	ours        | Mark         | the inbound hop to the app  | stays
//	ours        | none         | a call to its own pod       | Mark+1
func (b *builder) tproxyOutput() []Rule {
	var rules []Rule
	for _, owner := range b.owners() {
		rules = append(rules, rule("inbound hop of the proxy, by its source ("+owner.describe()+")",
			SetMark{Value: b.spec.Mark, Mask: allBits}, owner, AddressType{Not: true}))
	}
	rules = append(rules, rule("inbound hop of the proxy, by its mark", Return, marked(b.spec.Mark)))
	for _, owner := range b.owners() {
		rules = append(rules, rule("the proxy ("+owner.describe()+") calls its own pod: inbound",
			SetMark{Value: b.selfMark(), Mask: allBits}, b.toLoopback(true), owner))
	}
	return rules
}

// tproxyNAT takes the pod's own connections to the proxy. The proxy's calls to
// its own pod are left to mangle, by their mark: a proxy that is reached by
// TPROXY looks for the original destination at its own socket, where REDIRECT
// would have written the listener's address. Nothing over lo is for nat then,
// and the inbound hop cannot come back to the proxy, whatever its identity.
func (b *builder) tproxyNAT() Table {
	t := Table{Name: "nat"}
	b.addOutbound(&t, nil)
	if len(b.spec.VirtualInterfaces) > 0 {
		t.add(chainInbound, b.interfacePolicy()...)
		t.add("PREROUTING", rule("connections of virtual machines", Jump{chainInbound}, tcp))
	}
	return t
}
