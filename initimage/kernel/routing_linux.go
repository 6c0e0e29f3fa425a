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

// lo is the link that has the index 1 in every namespace (LOOPBACK_IFINDEX).
var lo = &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: loopbackIndex}}

const loopbackIndex = 1

// routingProtocol marks our rules and routes. rtnetlink(7) leaves the numbers above
// RTPROT_STATIC to users; iproute2 names no such number.
const routingProtocol = 133

// passthroughSources are the addresses that a rule set may add to lo. Nobody else
// uses them there, so their presence alone makes them ours.
var passthroughSources = []netip.Prefix{netip.MustParsePrefix("::6/128")}

// Routing implements Namespace.
func (h *Host) Routing(family ruleset.Family) (ruleset.Routing, error) {
	var routing ruleset.Routing
	var err error
	if routing.Addresses, err = h.addresses(family); err != nil {
		return routing, fmt.Errorf("listing the addresses of lo: %w", err)
	}
	if err = h.readPolicyRules(family, &routing); err != nil {
		return routing, fmt.Errorf("listing the policy rules: %w", err)
	}
	if err = h.readRoutes(family, &routing); err != nil {
		return routing, fmt.Errorf("listing the routes: %w", err)
	}
	return routing, h.readSettings(family, &routing)
}

func (h *Host) addresses(family ruleset.Family) ([]netip.Prefix, error) {
	ofFamily := func(p netip.Prefix) bool { return p.Addr().Is6() == (family == ruleset.IPv6) }
	if !slices.ContainsFunc(passthroughSources, ofFamily) {
		return nil, nil
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

// readPolicyRules reads our rules, the one that cuts off, and the rules of others
// between that of the local table, which comes first, and ours.
func (h *Host) readPolicyRules(family ruleset.Family, routing *ruleset.Routing) error {
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
			routing.Unreachable = true
		default:
			p := policyRule(rule)
			routing.Rules = append(routing.Rules, p)
			routing.Intruders = append(routing.Intruders, others...)
			others = nil
		}
	}
	return nil
}

// explainNoRules names the kernel option that is missing where a family has no
// policy rules. No run can do without them: it begins with the rule that cuts off.
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

// readRoutes reads our routes, and those of others in the tables that our rules
// look up.
func (h *Host) readRoutes(family ruleset.Family, routing *ruleset.Routing) error {
	routes, err := h.netlink.RouteListFiltered(netlinkFamily(family), &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return err
	}
	for _, route := range routes {
		table := uint32(route.Table)
		switch {
		case route.Protocol == routingProtocol && table == proofTable:
		case route.Protocol == routingProtocol:
			routing.Routes = append(routing.Routes, localRoute(route))
		case slices.ContainsFunc(routing.Rules, func(p ruleset.PolicyRule) bool { return p.Table == table }):
			routing.Intruders = append(routing.Intruders, fmt.Sprintf("route %s table %d", route.Dst, table))
		}
	}
	return nil
}

// plainRoute returns a route as a rule set has it.
func plainRoute(family ruleset.Family, table uint32) *netlink.Route {
	return &netlink.Route{
		LinkIndex: loopbackIndex, Dst: anywhere(family), Table: int(table),
		Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST, Protocol: routingProtocol,
	}
}

// forever is the kernel's INFINITY_LIFE_TIME. An address that is valid for ever and
// never preferred is deprecated: it can be bound, and is never chosen as a source
// address (RFC 4862, 5.5.4).
const forever = 1<<32 - 1

// AddRouting implements Namespace. It leaves what is there already as it is.
// Cutting a family off begins a change, so it deletes the proof first.
func (h *Host) AddRouting(family ruleset.Family, add ruleset.Routing) error {
	if add.Unreachable {
		if _, err := h.ForgetProof(family); err != nil {
			return err
		}
	}
	return h.change(family, add, routingEffects{
		cut: h.netlink.RuleAdd, address: h.netlink.AddrAdd, route: h.addRoute, rule: h.addRule, setting: h.setSetting("1"), adds: true,
		ignore: unix.EEXIST})
}

// RemoveRouting implements Namespace. What is gone already is no error.
func (h *Host) RemoveRouting(family ruleset.Family, remove ruleset.Routing) error {
	err := h.change(family, remove, routingEffects{
		cut: h.netlink.RuleDel, address: h.netlink.AddrDel, route: h.removeRoute, rule: h.removeRule, setting: h.setSetting("0"),
		ignore: unix.ENOENT})
	byMark := slices.ContainsFunc(remove.Rules, func(p ruleset.PolicyRule) bool { return p.Mark != 0 })
	if err == nil && (byMark || len(remove.Addresses) > 0) {
		err = h.abortHops(family)
	}
	return err
}

// routingEffects are the calls that add or remove each part of the routing.
type routingEffects struct {
	cut     func(*netlink.Rule) error
	address func(netlink.Link, *netlink.Addr) error
	route   func(ruleset.Family, ruleset.LocalRoute) error
	rule    func(ruleset.Family, ruleset.PolicyRule) error
	setting func(name string) error
	adds    bool
	ignore  error // the error if there is nothing to do
}

func (h *Host) change(family ruleset.Family, routing ruleset.Routing, effects routingEffects) error {
	ignored := func(err error) bool {
		return err == nil || errors.Is(err, effects.ignore) || errors.Is(err, unix.ESRCH)
	}
	if routing.Unreachable {
		if err := effects.cut(unreachableRule(family)); !ignored(err) {
			return fmt.Errorf("the rule that cuts off: %w", err)
		}
	}
	if err := effects.settings(routing, false); err != nil {
		return err
	}
	for _, a := range routing.Addresses {
		addr := &netlink.Addr{IPNet: ipNet(a), Flags: unix.IFA_F_NODAD, ValidLft: forever}
		if err := effects.address(lo, addr); !ignored(err) {
			return fmt.Errorf("address %s on lo: %w", a, err)
		}
		if err := h.awaitLocalRoute(a, effects.adds); err != nil {
			return fmt.Errorf("address %s on lo: %w", a, err)
		}
	}
	for _, l := range routing.Routes {
		if err := effects.route(family, l); !ignored(err) {
			return fmt.Errorf("route of table %d: %w", l.Table, err)
		}
	}
	for _, p := range routing.Rules {
		if err := effects.rule(family, p); !ignored(err) {
			return fmt.Errorf("rule %q: %w", p, err)
		}
	}
	return effects.settings(routing, true)
}

// settings sets the sysctls, if the effects add and are asked for what is added last,
// or else remove and are asked for what goes first: those that are left are known by
// the policy rules.
func (e routingEffects) settings(routing ruleset.Routing, last bool) error {
	if e.adds != last {
		return nil
	}
	for _, name := range routing.Settings {
		if err := e.setting(name); err != nil {
			return fmt.Errorf("sysctl %s: %w", name, err)
		}
	}
	return nil
}

// The kernel adds the route to a new IPv6 address from a work queue, some time
// after the address. Until then the address cannot be used.
const (
	localRoutePatience = 2 * time.Second
	localRoutePoll     = time.Millisecond
)

// awaitLocalRoute waits until the kernel takes packets for an address of lo as this
// host's, or no longer does.
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

// rulePriority is the priority of the local table's rule, which is older and so
// comes first. Ours follow it, before those of a network plug-in. Because the
// priority is fixed, the kernel rejects a second rule as a duplicate.
const rulePriority = 0

func netlinkRule(family ruleset.Family, wanted ruleset.PolicyRule) *netlink.Rule {
	rule := netlink.NewRule()
	rule.Family = netlinkFamily(family)
	if wanted.Mask != 0 {
		rule.Mark, rule.Mask = wanted.Mark, &wanted.Mask
	}
	if wanted.Source.IsValid() {
		rule.Src = ipNet(wanted.Source)
	}
	rule.OifName = wanted.OutInterface
	rule.Table = int(wanted.Table)
	rule.Protocol = routingProtocol
	rule.Priority = int(wanted.Priority)
	return rule
}

// policyRule inverts netlinkRule. The kernel reports the mask of every
// rule that has one, and of no other.
func policyRule(rule netlink.Rule) ruleset.PolicyRule {
	found := ruleset.PolicyRule{
		Mark: rule.Mark, OutInterface: rule.OifName, Table: uint32(rule.Table), Priority: uint32(rule.Priority),
		Narrowed: narrowing(rule),
	}
	if rule.Mask != nil {
		found.Mask = *rule.Mask
	}
	if rule.Src != nil {
		addr, _ := netip.AddrFromSlice(rule.Src.IP)
		bits, _ := rule.Src.Mask.Size()
		found.Source = netip.PrefixFrom(addr, bits)
	}
	return found
}

// unreachableRule returns the rule that rejects every route but those of the local
// table.
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
