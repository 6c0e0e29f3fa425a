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

// SettledMask has the bits by which Settled is compared.
const SettledMask = ^uint32(3)

// Settled returns the bits that Intercepted, Direct, Outbound and Proxy have in
// common, so that one comparison with SettledMask finds all of them.
func (m Marks) Settled() uint32 { return m.Intercepted }

// Marks returns the marks of the spec. They follow Spec.Mark: with 0x539, Intercepted
// is 0x53c, Direct 0x53d, Outbound 0x53e, Proxy 0x53f, and Self 0x540.
func (s Spec) Marks() Marks {
	settled := s.Mark&SettledMask + 4
	return Marks{Hop: s.Mark, Intercepted: settled, Direct: settled + 1, Outbound: settled + 2, Proxy: settled + 3, Self: settled + 4}
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
	if s.Mark > lastMark {
		errs = append(errs, flagErrorf(flagMark, "%#x; accepted with --%s: from 1 to %#x", s.Mark, flagNoConntrack, lastMark))
	}
	return errs
}

// lastMark is the last Spec.Mark whose marks are 32 bits.
const lastMark uint32 = 1<<32 - 9
