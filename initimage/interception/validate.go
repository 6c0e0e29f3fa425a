package interception

import (
	"errors"
)

// Marks of SystemAmbient besides Spec.Mark, as Istio's node agent and its proxy use
// them.
const (
	// AmbientMask holds the bits of a mark that the rules compare.
	AmbientMask = 0xfff
	// AmbientReply is the mark of the conntrack entry of a connection that the
	// proxy made to the pod, and of the answers to it.
	AmbientReply = 0x111
)

// Validate checks for values that contradict each other. It returns a *FlagError
// for every contradiction, joined. A Spec that passes can be built.
func (s Spec) Validate() error {
	errs := s.portCollisions()
	if len(s.ProxyUIDs) == 0 && len(s.ProxyGIDs) == 0 && s.System != SystemAmbient {
		errs = append(errs, flagErrorf(flagUIDs,
			"without a uid and a gid the proxy's own connections would come back to it; "+
				"accepted: at least one of --proxy-uid and --proxy-gid"))
	}
	excluded := make(map[string]bool, len(s.ExcludeInterfaces))
	for _, name := range s.ExcludeInterfaces {
		excluded[name] = true
	}
	for _, name := range s.VirtualInterfaces {
		if excluded[name] {
			errs = append(errs, flagErrorf(flagVirtual,
				"interface %q is also in --istio-exclude-interfaces; accepted: one of the two", name))
		}
	}
	if !s.OwnerGroups.All && len(s.ExcludeOwnerGroups) > 0 {
		errs = append(errs, flagErrorf(flagExcludeOwnerGroups,
			"given with a list in --outbound-owner-groups; accepted: one of the two"))
	}
	if s.System == SystemAmbient && (s.Mark > AmbientMask || s.Mark == AmbientReply) {
		errs = append(errs, flagErrorf(flagMark, "%#x; accepted in system ambient: from 1 to %#x, but not %#x",
			s.Mark, AmbientMask, AmbientReply))
	}
	errs = append(errs, s.dnsContradictions()...)
	errs = append(errs, s.noConntrackContradictions()...)
	return errors.Join(append(errs, s.udpContradictions()...)...)
}

// dnsContradictions finds DNS flags that have no effect without another.
func (s Spec) dnsContradictions() []error {
	var errs []error
	if !s.DNS.Redirect {
		if s.DNS.All {
			errs = append(errs, flagErrorf(flagCaptureAll, "given without --%s; accepted: both", flagRedirectDNS))
		}
		if s.DNS.Servers != nil {
			errs = append(errs, flagErrorf(flagDNSServers, "given without --%s; accepted: both", flagRedirectDNS))
		}
		return errs
	}
	if s.DNS.All && s.DNS.Servers != nil {
		errs = append(errs, flagErrorf(flagDNSServers, "given with --%s; accepted: one of the two", flagCaptureAll))
	}
	if s.System == SystemLegacy {
		errs = append(errs, flagErrorf(flagRedirectDNS, "not in system %q; accepted: redirect, tproxy, ambient", s.System))
	}
	return errs
}

// udpContradictions finds udp ports that the system does not support, or that are
// to be both intercepted and rejected.
func (s Spec) udpContradictions() []error {
	var errs []error
	for _, f := range []struct {
		flag  string
		ports PortRanges
	}{{flagUDPPorts, s.UDPPorts}, {flagRejectUDP, s.RejectUDPPorts}} {
		if f.ports != nil && s.System != SystemTProxy {
			errs = append(errs, flagErrorf(f.flag, "not in system %q; accepted: tproxy", s.System))
		}
	}
	for _, r := range s.UDPPorts {
		if i := s.RejectUDPPorts.from(r.First); i < len(s.RejectUDPPorts) && s.RejectUDPPorts[i].First <= r.Last {
			errs = append(errs, flagErrorf(flagRejectUDP, "%s is also in --%s %s; accepted: one of the two",
				s.RejectUDPPorts[i], flagUDPPorts, r))
		}
	}
	return errs
}

// portCollisions finds two listeners of the proxy on one port.
func (s Spec) portCollisions() []error {
	listeners := []struct {
		flag string
		port uint16
	}{{flagOutboundPort, s.OutboundPort}, {flagInboundPort, s.InboundPort}, {flagTunnelPort, s.TunnelPort}, {flagDNSPort, s.DNS.Port}}
	var errs []error
	for i, a := range listeners {
		for _, b := range listeners[:i] {
			if a.port == b.port && a.port != 0 {
				errs = append(errs, flagErrorf(a.flag, "port %d is also --%s; accepted: a port of its own", a.port, b.flag))
			}
		}
	}
	return errs
}
