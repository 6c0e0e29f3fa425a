package interception

import (
	"errors"
	"slices"
)

// Validate checks what no single value can show: values that contradict each
// other. It returns a *FlagError for every contradiction, joined. A Spec that
// passes it can be built.
func (s Spec) Validate() error {
	errs := s.portCollisions()
	if len(s.ProxyUIDs) == 0 && len(s.ProxyGIDs) == 0 {
		errs = append(errs, flagErrorf(flagUIDs,
			"without a uid and a gid the proxy's own connections would come back to it; accepted: at least one of --proxy-uid and --proxy-gid"))
	}
	for _, name := range s.VirtualInterfaces {
		if slices.Contains(s.ExcludeInterfaces, name) {
			errs = append(errs, flagErrorf(flagVirtual, "interface %q is also in --istio-exclude-interfaces; accepted: one of the two", name))
		}
	}
	return errors.Join(errs...)
}

// portCollisions finds two listeners of the proxy on one port.
func (s Spec) portCollisions() []error {
	listeners := []struct {
		flag string
		port uint16
	}{{flagOutboundPort, s.OutboundPort}, {flagInboundPort, s.InboundPort}, {flagTunnelPort, s.TunnelPort}}
	var errs []error
	for i, a := range listeners {
		for _, b := range listeners[:i] {
			if a.port == b.port {
				errs = append(errs, flagErrorf(a.flag, "port %d is also --%s; accepted: a port of its own", a.port, b.flag))
			}
		}
	}
	return errs
}
