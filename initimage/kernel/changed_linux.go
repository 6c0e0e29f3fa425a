package kernel

import (
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// localRoute is the way back from plainRoute, and says what is other in a
// route that somebody has changed.
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

// putRoute adds a route, in the place of one that somebody has made of it. What
// others made of a route is not put back.
func (h *Host) putRoute(family ruleset.Family, l ruleset.LocalRoute) error {
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

// removeRoute takes a route away, also one that somebody has changed.
func (h *Host) removeRoute(family ruleset.Family, l ruleset.LocalRoute) error {
	if l.Changed == "" {
		return h.netlink.RouteDel(plainRoute(family, l.Table))
	}
	filter := &netlink.Route{Table: int(l.Table), Protocol: routingProtocol}
	routes, err := h.netlink.RouteListFiltered(netlinkFamily(family), filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return err
	}
	for _, route := range routes {
		if localRoute(route) != l {
			continue
		}
		if err := h.netlink.RouteDel(&route); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// putRule adds a rule, in the place of what somebody has narrowed it to: to the
// kernel that is the same. What others made of a rule is not put back.
func (h *Host) putRule(family ruleset.Family, p ruleset.PolicyRule) error {
	if p.Narrowed != "" {
		return nil
	}
	err := h.netlink.RuleAdd(netlinkRule(family, p))
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := h.removeNarrowed(family, p); err != nil {
		return err
	}
	return h.netlink.RuleAdd(netlinkRule(family, p))
}

// removeRule takes a rule away, also one that somebody has narrowed.
func (h *Host) removeRule(family ruleset.Family, p ruleset.PolicyRule) error {
	if p.Narrowed != "" {
		p.Narrowed = ""
		return h.removeNarrowed(family, p)
	}
	return h.netlink.RuleDel(netlinkRule(family, p))
}

// removeNarrowed takes the rules away that somebody has narrowed from one of
// ours. The kernel deletes the first rule that has what it is told of, so that
// it is told all.
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

// narrowing is what a rule of ours looks at that none of those does that we
// put.
func narrowing(rule netlink.Rule) string {
	var words []string
	add := func(is bool, format string, args ...any) {
		if is {
			words = append(words, fmt.Sprintf(format, args...))
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
	return strings.Join(words, " ")
}
