package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// routingProtocol marks our rules and routes as ours. rtnetlink(7) leaves the
// numbers above RTPROT_STATIC to whoever uses them; this one is in no table of
// iproute2.
const routingProtocol = 133

// passthroughSources are the addresses that a rule set may put on lo. lo has
// no other owner for them, so that their presence alone makes them ours.
var passthroughSources = []netip.Prefix{netip.MustParsePrefix("::6/128")}

// Routing implements Namespace.
func (h *Host) Routing(family ruleset.Family) (ruleset.Routing, error) {
	var r ruleset.Routing
	var err error
	if r.Addresses, err = h.addresses(family); err != nil {
		return r, fmt.Errorf("listing the addresses of lo: %w", err)
	}
	if err = h.readPolicyRules(family, &r); err != nil {
		return r, fmt.Errorf("listing the policy rules: %w", err)
	}
	if err = h.readRoutes(family, &r); err != nil {
		return r, fmt.Errorf("listing the routes: %w", err)
	}
	return r, nil
}

func (h *Host) addresses(family ruleset.Family) ([]netip.Prefix, error) {
	lo, err := h.netlink.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	addrs, err := h.netlink.AddrList(lo, netlinkFamily(family))
	if err != nil {
		return nil, err
	}
	var ours []netip.Prefix
	for _, a := range addrs {
		ip, _ := netip.AddrFromSlice(a.IP)
		bits, _ := a.Mask.Size()
		if p := netip.PrefixFrom(ip, bits); slices.Contains(passthroughSources, p) {
			ours = append(ours, p)
		}
	}
	return ours, nil
}

// readPolicyRules finds our rules, the one that cuts off, and the rules of
// others between the local table's, which comes first, and ours.
func (h *Host) readPolicyRules(family ruleset.Family, r *ruleset.Routing) error {
	rules, err := h.netlink.RuleList(netlinkFamily(family)) // in the order in which they are tried
	if err != nil {
		return explainNoRules(family, err)
	}
	var others []string
	for i, rule := range rules {
		switch {
		case rule.Protocol != routingProtocol:
			if i > 0 || rule.Table != unix.RT_TABLE_LOCAL {
				others = append(others, strings.TrimPrefix(rule.String(), "ip "))
			}
		case rule.Table == unix.RT_TABLE_UNSPEC: // it looks nothing up
			r.Unreachable = true
		default:
			p := policyRule(rule)
			r.Rules = append(r.Rules, p)
			r.Intruders = append(r.Intruders, others...)
			others = nil
		}
	}
	return nil
}

// explainNoRules says what is missing where the kernel knows no policy rules
// of a family. No run can do without: it begins with the rule that cuts off.
func explainNoRules(family ruleset.Family, err error) error {
	if !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	option, way := "CONFIG_IP_MULTIPLE_TABLES", ""
	if family == ruleset.IPv6 {
		option, way = "CONFIG_IPV6_MULTIPLE_TABLES", "; --ipv6=off leaves IPv6 alone"
	}
	return fmt.Errorf("this kernel lacks policy routing for %s (%s)%s: %w", family, option, way, err)
}

// readRoutes finds our routes, and those of others in the tables that our
// rules look up.
func (h *Host) readRoutes(family ruleset.Family, r *ruleset.Routing) error {
	routes, err := h.netlink.RouteListFiltered(netlinkFamily(family), &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return err
	}
	for _, route := range routes {
		table := uint32(route.Table)
		switch {
		case route.Protocol == routingProtocol && table == proofTable:
		case route.Protocol == routingProtocol:
			r.Routes = append(r.Routes, localRoute(route))
		case slices.ContainsFunc(r.Rules, func(p ruleset.PolicyRule) bool { return p.Table == table }):
			r.Intruders = append(r.Intruders, fmt.Sprintf("route %s table %d", route.Dst, table))
		}
	}
	return nil
}

// plainRoute is a route as a rule set has it.
func plainRoute(family ruleset.Family, table uint32) *netlink.Route {
	return &netlink.Route{
		LinkIndex: loopbackIndex, Dst: anywhere(family), Table: int(table),
		Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST, Protocol: routingProtocol,
	}
}

// forever is INFINITY_LIFE_TIME of the kernel. An address that is valid for
// ever and preferred for no time is deprecated: it can be bound, and is never
// chosen as a source address (RFC 4862, 5.5.4).
const forever = 1<<32 - 1

// AddRouting implements Namespace. What is there already is left as it is. To
// cut a family off is to begin a change: what was proved of it is so no more.
func (h *Host) AddRouting(family ruleset.Family, add ruleset.Routing) error {
	if add.Unreachable {
		if _, err := h.ForgetProof(family); err != nil {
			return err
		}
	}
	return h.change(family, add, routingEffects{
		cut: h.netlink.RuleAdd, address: h.netlink.AddrAdd, route: h.putRoute, rule: h.putRule, adds: true, ignore: unix.EEXIST})
}

// RemoveRouting implements Namespace. What is gone already is no error.
func (h *Host) RemoveRouting(family ruleset.Family, remove ruleset.Routing) error {
	err := h.change(family, remove, routingEffects{
		cut: h.netlink.RuleDel, address: h.netlink.AddrDel, route: h.removeRoute, rule: h.removeRule, ignore: unix.ENOENT})
	byMark := slices.ContainsFunc(remove.Rules, func(p ruleset.PolicyRule) bool { return p.Mark != 0 })
	if err == nil && (byMark || len(remove.Addresses) > 0) {
		err = h.abortHops(family)
	}
	return err
}

// routingEffects are the ways in which routing is changed.
type routingEffects struct {
	cut     func(*netlink.Rule) error
	address func(netlink.Link, *netlink.Addr) error
	route   func(ruleset.Family, ruleset.LocalRoute) error
	rule    func(ruleset.Family, ruleset.PolicyRule) error
	adds    bool
	ignore  error // what is said where there is nothing to do
}

func (h *Host) change(family ruleset.Family, r ruleset.Routing, do routingEffects) error {
	lo, err := h.netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	ignored := func(err error) bool { return err == nil || errors.Is(err, do.ignore) || errors.Is(err, unix.ESRCH) }
	if r.Unreachable {
		if err := do.cut(unreachableRule(family)); !ignored(err) {
			return fmt.Errorf("the rule that cuts off: %w", err)
		}
	}
	for _, a := range r.Addresses {
		addr := &netlink.Addr{IPNet: ipNet(a), Flags: unix.IFA_F_NODAD, ValidLft: forever}
		if err := do.address(lo, addr); !ignored(err) {
			return fmt.Errorf("address %s on lo: %w", a, err)
		}
		if err := h.awaitLocalRoute(a, do.adds); err != nil {
			return fmt.Errorf("address %s on lo: %w", a, err)
		}
	}
	for _, l := range r.Routes {
		if err := do.route(family, l); !ignored(err) {
			return fmt.Errorf("route of table %d: %w", l.Table, err)
		}
	}
	for _, p := range r.Rules {
		if err := do.rule(family, p); !ignored(err) {
			return fmt.Errorf("rule %q: %w", p, err)
		}
	}
	return nil
}

// The kernel puts the route to a new IPv6 address in by a work queue, some
// time after the address; until then the address cannot be used.
const (
	localRoutePatience = 2 * time.Second
	localRoutePoll     = time.Millisecond
)

// awaitLocalRoute waits until packets for an address of lo are taken as this
// host's, or no longer are.
func (h *Host) awaitLocalRoute(a netip.Prefix, wanted bool) error {
	family := netlink.FAMILY_V4
	if a.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	filter := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Dst: ipNet(a)}
	for deadline := time.Now().Add(localRoutePatience); ; time.Sleep(localRoutePoll) {
		routes, err := h.netlink.RouteListFiltered(family, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
		if err != nil {
			return fmt.Errorf("listing the local routes: %w", err)
		}
		if (len(routes) > 0) == wanted {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("its local route has not changed within %s", localRoutePatience)
		}
	}
}

// rulePriority is that of the rule of the local table, which comes first
// because it is there longer. Ours follow it, before whatever a network plug-in
// has put. Being fixed, it makes a second rule a duplicate, which the kernel
// refuses.
const rulePriority = 0

func netlinkRule(family ruleset.Family, p ruleset.PolicyRule) *netlink.Rule {
	rule := netlink.NewRule()
	rule.Family = netlinkFamily(family)
	if p.Mask != 0 {
		rule.Mark, rule.Mask = p.Mark, &p.Mask
	}
	if p.Source.IsValid() {
		rule.Src = ipNet(p.Source)
	}
	rule.OifName = p.OutInterface
	rule.Table = int(p.Table)
	rule.Protocol = routingProtocol
	rule.Priority = int(p.Priority)
	return rule
}

// policyRule is the way back from netlinkRule. The kernel tells the mask of
// every rule that has one, and no other.
func policyRule(rule netlink.Rule) ruleset.PolicyRule {
	p := ruleset.PolicyRule{
		Mark: rule.Mark, OutInterface: rule.OifName, Table: uint32(rule.Table), Priority: uint32(rule.Priority),
		Narrowed: narrowing(rule),
	}
	if rule.Mask != nil {
		p.Mask = *rule.Mask
	}
	if rule.Src != nil {
		addr, _ := netip.AddrFromSlice(rule.Src.IP)
		bits, _ := rule.Src.Mask.Size()
		p.Source = netip.PrefixFrom(addr, bits)
	}
	return p
}

// unreachableRule refuses every route but those of the local table.
func unreachableRule(family ruleset.Family) *netlink.Rule {
	rule := netlink.NewRule()
	rule.Family = netlinkFamily(family)
	rule.Type = unix.RTN_UNREACHABLE
	rule.Protocol = routingProtocol
	rule.Priority = rulePriority
	return rule
}

func netlinkFamily(f ruleset.Family) int {
	if f == ruleset.IPv6 {
		return netlink.FAMILY_V6
	}
	return netlink.FAMILY_V4
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func anywhere(f ruleset.Family) *net.IPNet {
	if f == ruleset.IPv6 {
		return ipNet(netip.MustParsePrefix("::/0"))
	}
	return ipNet(netip.MustParsePrefix("0.0.0.0/0"))
}
