package dump

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// setRouting sets the policy rules that take packets to a table where every address
// is local, and the addresses of lo. What else decides before them is unread.
func (a *assembly) setRouting(side *trace.Side, saved []save) {
	set := ruleset.RuleSet{Family: side.Family}
	for _, l := range a.links {
		for _, p := range l.addresses {
			if l.loopback && side.Family.Of(p.Addr()) && !p.Addr().IsLoopback() {
				set.Routing.Addresses = append(set.Routing.Addresses, p)
			}
		}
	}
	switch rules, given := a.policy[side.Family]; {
	case given:
		side.Unread = append(side.Unread, a.policyRouting(&set.Routing, side, rules)...)
	case len(saved) == 1 && saved[0].rules.Routing.Rules != nil: // shunt rules prints it
		set.Routing = saved[0].rules.Routing
	case marks(side.Sets):
		side.Unread = append(side.Unread, "the policy rules and routes that the marks are for: "+
			map[ruleset.Family]string{ruleset.IPv4: "ip rule", ruleset.IPv6: "ip -6 rule"}[side.Family]+" is not in the dump")
	default:
		a.note("%s: no output of ip rule, so no policy rule is taken to be there", side.Family)
	}
	if len(set.Routing.Addresses) == 0 && len(a.links) == 0 && len(saved) > 0 {
		for _, s := range saved {
			set.Routing.Addresses = append(set.Routing.Addresses, s.rules.Routing.Addresses...)
		}
	}
	set.Routing.Settings = a.settings(side)
	set.Canonical()
	set.Routing.Addresses = slices.Compact(set.Routing.Addresses)
	side.Routing = set.Routing
}

// settings returns the sysctls that are set by which sockets inherit marks. Where the
// dump has none and rules of Shunt need them, they are taken to be.
func (a *assembly) settings(side *trace.Side) []string {
	var on []string
	for _, name := range side.Family.MarkSettings() {
		value, known := a.marks[name]
		if needed := slices.ContainsFunc(side.Sets, ruleset.RuleSet.ByMarks); !known && needed {
			a.note("sysctl %s is not in the dump, and is taken to be 1: the rules need it", name)
			value = true
		}
		if value {
			on = append(on, name)
		}
	}
	return on
}

// marks reports whether rules give packets a mark, for which there is a policy rule.
func marks(sets []ruleset.RuleSet) bool {
	for _, set := range sets {
		for step := range set.Rules() {
			switch step.Rule.Target.(type) {
			case ruleset.TProxy, ruleset.SetMark, ruleset.RestoreMark:
				return true
			}
		}
	}
	return false
}

// policyRouting goes through the policy rules as the kernel does. A rule behind one
// that has a route for every packet is never looked at.
func (a *assembly) policyRouting(routing *ruleset.Routing, side *trace.Side, rules []policyRule) (unread []string) {
	tables := a.tablesOf(side.Family)
	var before []string // rules that are not followed, and may decide before a later one does
	for _, p := range rules {
		table := tableNumber(p.table)
		what := fmt.Sprintf("ip -%d rule %d: %s", side.Family, p.priority, p.text)
		switch routes := tables[table]; p.kind() {
		case ruleCutsOff:
			routing.Unreachable = true
			return unread
		case ruleNothing:
		case ruleOther:
			unread = append(unread, what)
		case ruleMain:
			if slices.ContainsFunc(routes, func(r route) bool { return r.all }) {
				return append(unread, before...)
			}
		case ruleTable:
			known := a.allTables || table == tableMain || table == tableDefault
			switch {
			case !known:
				unread = append(unread, what+": the routes of its table are not in the dump (ip route show table all)")
			case slices.ContainsFunc(routes, route.everythingLocal):
				unread = append(append(unread, before...), a.addPolicy(routing, side.Family, p, routes)...)
				before = nil
			case !harmless(routes, side.Host.Uplink):
				before = append(before, what)
			}
		}
	}
	return append(unread, before...)
}

// ruleKind is what a policy rule does.
type ruleKind int

const (
	ruleTable   ruleKind = iota // looks a table up
	ruleMain                    // looks up a table that every packet comes to
	ruleCutsOff                 // takes every packet
	ruleNothing
	ruleOther
)

func (p policyRule) kind() ruleKind {
	switch table := tableNumber(p.table); {
	case p.action == "nop" || table == tableLocal:
		return ruleNothing
	case p.table != "" && p.plain() && (table == tableMain || table == tableDefault):
		return ruleMain
	case p.table != "":
		return ruleTable
	case p.plain() && p.action != "" && !strings.HasPrefix(p.action, "goto"):
		return ruleCutsOff
	}
	return ruleOther
}

// addPolicy adds a rule that looks up a table where every address is local.
func (a *assembly) addPolicy(routing *ruleset.Routing, family ruleset.Family, p policyRule, routes []route) (unread []string) {
	what := fmt.Sprintf("ip -%d rule %d: %s", family, p.priority, p.text)
	number, err := parseUint32(p.table)
	if err != nil {
		return []string{what + ": a table with a name; ip -N rule and ip -N route show table all print its number"}
	}
	rule := ruleset.PolicyRule{
		Mark: p.mark, Mask: p.mask, Source: p.source, OutInterface: p.out, Table: number, Priority: p.priority,
		Narrowed: strings.Join(p.others, " "),
	}
	if rule.Narrowed != "" {
		unread = append(unread, what)
	}
	for _, r := range routes {
		if !r.everythingLocal() {
			unread = append(unread, fmt.Sprintf("ip -%d route: %s", family, r.text))
		}
	}
	routing.Rules = append(routing.Rules, rule)
	if route := (ruleset.LocalRoute{Table: number}); !slices.Contains(routing.Routes, route) {
		routing.Routes = append(routing.Routes, route)
	}
	return unread
}

// everythingLocal reports whether the route gives every packet to this host.
func (r route) everythingLocal() bool { return r.kind == "local" && r.all && r.dev == "lo" }

// harmless reports whether routes only lead where packets go without them.
func harmless(routes []route, uplink string) bool {
	return !slices.ContainsFunc(routes, func(r route) bool { return r.kind != "unicast" || r.dev != uplink })
}

// tablesOf returns the routes of a family by their tables.
func (a *assembly) tablesOf(family ruleset.Family) map[string][]route {
	tables := map[string][]route{}
	for _, r := range a.routes {
		if r.family == family {
			tables[r.table] = append(tables[r.table], r)
		}
	}
	return tables
}
