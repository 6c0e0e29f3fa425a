package kernel

import (
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// localRoute inverts plainRoute. It also reports how somebody has changed
// the route.
func localRoute(route netlink.Route) ruleset.LocalRoute {
	l := ruleset.LocalRoute{Table: uint32(route.Table)}
	bits := 0
	if route.Dst != nil {
		bits, _ = route.Dst.Mask.Size()
	}
	if bits != 0 || route.Type != unix.RTN_LOCAL {
		l.Changed = fmt.Sprintf("type %d %s", route.Type, route.Dst)
	}
	return l
}

// addRoute adds a route, or replaces one of ours that somebody has changed. A route
// that records such a change is not added.
func (h *Host) addRoute(family ruleset.Family, l ruleset.LocalRoute) error {
	if l.Changed != "" {
		return nil
	}
	route := plainRoute(family, l.Table)
	err := h.netlink.RouteAdd(route)
	if errors.Is(err, unix.EEXIST) {
		return h.netlink.RouteReplace(route)
	}
	return err
}

// removeRoute deletes a route, also one that somebody has changed.
func (h *Host) removeRoute(family ruleset.Family, unwanted ruleset.LocalRoute) error {
	if unwanted.Changed == "" {
		return h.netlink.RouteDel(plainRoute(family, unwanted.Table))
	}
	filter := &netlink.Route{Table: int(unwanted.Table), Protocol: routingProtocol}
	routes, err := h.netlink.RouteListFiltered(netlinkFamily(family), filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return err
	}
	for _, route := range routes {
		if localRoute(route) != unwanted {
			continue
		}
		if err := h.netlink.RouteDel(&route); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// addRule adds a rule. If somebody has narrowed the same rule of ours, which the
// kernel takes for a duplicate, addRule replaces it. A rule that records such a
// change is not added.
func (h *Host) addRule(family ruleset.Family, wanted ruleset.PolicyRule) error {
	if wanted.Narrowed != "" {
		return nil
	}
	err := h.netlink.RuleAdd(netlinkRule(family, wanted))
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := h.removeNarrowed(family, wanted); err != nil {
		return err
	}
	return h.netlink.RuleAdd(netlinkRule(family, wanted))
}

// removeRule deletes a rule, also one that somebody has narrowed.
func (h *Host) removeRule(family ruleset.Family, unwanted ruleset.PolicyRule) error {
	if unwanted.Narrowed != "" {
		unwanted.Narrowed = ""
		return h.removeNarrowed(family, unwanted)
	}
	return h.netlink.RuleDel(netlinkRule(family, unwanted))
}

// removeNarrowed deletes the rules that somebody made from one of ours by adding
// conditions. The kernel deletes the first rule that has all the given properties,
// so each is given whole.
func (h *Host) removeNarrowed(family ruleset.Family, plain ruleset.PolicyRule) error {
	rules, err := h.netlink.RuleList(netlinkFamily(family))
	if err != nil {
		return err
	}
	for _, rule := range rules {
		found := policyRule(rule)
		narrowed := found.Narrowed != ""
		found.Narrowed = ""
		if !narrowed || rule.Protocol != routingProtocol || found != plain {
			continue
		}
		if err := h.netlink.RuleDel(&rule); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// narrowing returns the conditions of a rule that none of our rules has.
func narrowing(rule netlink.Rule) string {
	var conditions []string
	add := func(given bool, format string, args ...any) {
		if given {
			conditions = append(conditions, fmt.Sprintf(format, args...))
		}
	}
	add(rule.Invert, "not")
	add(rule.Dst != nil, "to %s", rule.Dst)
	add(rule.IifName != "", "iif %s", rule.IifName)
	add(rule.Tos != 0, "tos %#x", rule.Tos)
	add(rule.TunID != 0, "tun_id %d", rule.TunID)
	add(rule.IPProto != 0, "ipproto %d", rule.IPProto)
	if p := rule.Sport; p != nil {
		add(true, "sport %d-%d", p.Start, p.End)
	}
	if p := rule.Dport; p != nil {
		add(true, "dport %d-%d", p.Start, p.End)
	}
	if u := rule.UIDRange; u != nil {
		add(true, "uidrange %d-%d", u.Start, u.End)
	}
	add(rule.SuppressPrefixlen >= 0, "suppress_prefixlength %d", rule.SuppressPrefixlen)
	add(rule.SuppressIfgroup >= 0, "suppress_ifgroup %d", rule.SuppressIfgroup)
	add(rule.Type != 0 && rule.Type != unix.FR_ACT_TO_TBL, "action %d", rule.Type)
	return strings.Join(conditions, " ")
}
