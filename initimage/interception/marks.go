package interception

// Marks are the packet marks that tell SystemTProxy without conntrack what a packet
// belongs to. The first two are set by the proxy on its sockets, the others by the
// rules. Sockets that the kernel accepts inherit the mark of the segment that opened
// them, so that answers carry it, too.
type Marks struct {
	// Hop is the proxy's connection to the app, from the client's address, and the
	// app's answers to it.
	Hop uint32
	// Proxy is every other socket of the proxy: its own connections to elsewhere.
	Proxy uint32
	// Self is a connection of the proxy to its own pod's address.
	Self uint32
	// Intercepted is a connection to the pod that the proxy accepts.
	Intercepted uint32
	// Direct is a connection to the pod that the app accepts.
	Direct uint32
	// Outbound is a connection of the app that the proxy accepts.
	Outbound uint32
}

// Marks returns the marks of the spec. They follow Spec.Mark.
func (s Spec) Marks() Marks {
	return Marks{Hop: s.Mark, Self: s.Mark + 1, Intercepted: s.Mark + 3, Direct: s.Mark + 4, Outbound: s.Mark + 5, Proxy: s.Mark + 6}
}

// noConntrackContradictions finds what SystemTProxy cannot do without conntrack.
func (s Spec) noConntrackContradictions() []error {
	if !s.NoConntrack {
		return nil
	}
	var errs []error
	if s.System != SystemTProxy {
		errs = append(errs, flagErrorf(flagNoConntrack, "not in system %q; accepted: tproxy", s.System))
	}
	for _, f := range []struct {
		given bool
		flag  string
		why   string
	}{
		{s.DNS.Redirect, flagRedirectDNS, "an answer to a captured query is rewritten by conntrack"},
		{s.UDPPorts != nil, flagUDPPorts, "only tcp sockets inherit marks"},
		{s.DropInvalid, flagDropInvalid, "conntrack decides what is invalid"},
		{!s.OwnerGroups.All, flagOwnerGroups, "a closed socket that still sends has no owner"},
		{len(s.ExcludeOwnerGroups) > 0, flagExcludeOwnerGroups, "a closed socket that still sends has no owner"},
		{len(s.VirtualInterfaces) > 0, flagVirtual, "a virtual machine's sockets inherit no marks"},
	} {
		if f.given {
			errs = append(errs, flagErrorf(f.flag, "not with --%s, because %s; accepted: one of the two", flagNoConntrack, f.why))
		}
	}
	if s.Mark > maxMark-s.Marks().spread() {
		errs = append(errs, flagErrorf(flagMark, "%#x; accepted with --%s: from 1 to %#x", s.Mark, flagNoConntrack, maxMark-s.Marks().spread()))
	}
	return errs
}

// spread is how far the marks reach beyond Spec.Mark.
func (m Marks) spread() uint32 { return m.Proxy - m.Hop }
