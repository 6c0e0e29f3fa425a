package trace

import (
	"net/netip"
	"slices"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// InventedHost is the host of pods that do not exist yet.
func InventedHost() ruleset.Host {
	return ruleset.Host{
		Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
		Uplink:    "eth0",
	}
}

// Wanted returns a pod with the rules of a spec and nothing else, and made-up
// addresses. Families that are not asked for have no rules: what is sent there
// passes the proxy by.
func Wanted(name string, spec interception.Spec, families []ruleset.Family) Pod {
	pod := Pod{Name: name, Proxy: ProxyOf(spec), Built: &spec}
	for _, family := range ruleset.Families {
		side := Side{Family: family, Host: InventedHost(), Invented: true}
		if slices.Contains(families, family) {
			set := ruleset.Build(spec, family)
			side.Sets, side.Routing = []ruleset.RuleSet{set}, set.Routing
		}
		pod.Sides = append(pod.Sides, side)
	}
	return pod
}

// In returns the pod as another system would intercept it: the same ports, addresses
// and owners. It returns false for a pod whose rules were read somewhere, for one
// without rules, and where the system has no use for a setting.
func (p Pod) In(system interception.System) (Pod, bool) {
	if p.Built == nil {
		return Pod{}, false
	}
	spec := *p.Built
	spec.System, spec.NoConntrack = system, spec.NoConntrack && system == interception.SystemTProxy
	var families []ruleset.Family
	for _, side := range p.Sides {
		if len(side.Sets) > 0 {
			families = append(families, side.Family)
		}
	}
	if len(families) == 0 || spec.Validate() != nil {
		return Pod{}, false
	}
	return Wanted(p.Name, spec, families), true
}

// ProxyOf returns the proxy that a spec is for. A proxy that is known by its group
// alone, or by its user alone, has Istio's number for the other.
func ProxyOf(spec interception.Spec) Proxy {
	proxy := Proxy{
		UID: interception.DefaultProxyUID, GID: interception.DefaultProxyGID,
		Inbound: spec.InboundPort, Outbound: spec.OutboundPort,
	}
	if len(spec.ProxyUIDs) > 0 {
		proxy.UID = spec.ProxyUIDs[0]
	}
	if len(spec.ProxyGIDs) > 0 {
		proxy.GID = spec.ProxyGIDs[0]
	}
	if spec.DNS.Redirect {
		proxy.DNS = spec.DNS.Port
	}
	switch spec.System {
	case interception.SystemTProxy:
		proxy.Transparent, proxy.Mark = true, spec.Mark
		if spec.NoConntrack {
			proxy.OwnMark = spec.Marks().Proxy
		}
	case interception.SystemAmbient:
		proxy.Transparent, proxy.Mark, proxy.MarkAll = true, spec.Mark, true
	case interception.SystemLegacy:
		proxy.Inbound = spec.OutboundPort
	}
	return proxy
}
