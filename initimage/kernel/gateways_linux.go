package kernel

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Gateways returns the next hops of the namespace's default routes, without
// link-local ones. With a network plug-in that has a bridge or an address of its own
// on the node, kubelet's connections come from there.
func Gateways(families []ruleset.Family) ([]netip.Addr, error) {
	var all []netip.Addr
	for _, family := range families {
		routes, err := netlink.RouteList(nil, netlinkFamily(family))
		if err != nil {
			return nil, fmt.Errorf("reading the routes of %s: %w", family, err)
		}
		for _, route := range routes {
			ones := 0
			if route.Dst != nil {
				ones, _ = route.Dst.Mask.Size()
			}
			gateway, valid := netip.AddrFromSlice(route.Gw)
			gateway = gateway.Unmap()
			if valid && ones == 0 && !gateway.IsLinkLocalUnicast() && !slices.Contains(all, gateway) {
				all = append(all, gateway)
			}
		}
	}
	return all, nil
}
