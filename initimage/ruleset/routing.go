package ruleset

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Routing is what a rule set needs beside netfilter. Each part prints as the
// arguments of ip(8).
type Routing struct {
	Addresses []netip.Prefix // on lo
	Rules     []PolicyRule
	Routes    []LocalRoute
	// Unreachable cuts the host off while its rules are being changed:
	// nothing is routed beyond its own addresses, so that no connection to or
	// from outside can be made, and none that is there makes headway.
	Unreachable bool
	// Intruders are rules and routes of others that decide before ours do, as
	// ip(8) would say it. A rule set that is built has none.
	Intruders []string
}

// PolicyRule sends packets with a mark to a routing table.
type PolicyRule struct {
	Mark, Mask uint32 // a packet matches when its mark, masked, is Mark
	Table      uint32
	// Priority is 0 in a rule set that is built: straight behind the rule of
	// the local table, which is there longer. A greater one comes later.
	Priority uint32
}

// LocalRoute makes every address of the family local, on lo, in one table: a
// packet that is routed by it is given to a socket of this host.
type LocalRoute struct {
	Table uint32
}

// lines prints the routing, a command of ip(8) a line.
func (r Routing) lines(f Family) []string {
	var lines []string
	if r.Unreachable {
		lines = append(lines, fmt.Sprintf("ip -%d rule add unreachable", f))
	}
	for _, a := range r.Addresses {
		lines = append(lines, fmt.Sprintf("ip -%d address add %s dev lo", f, a))
	}
	for _, p := range r.Rules {
		line := fmt.Sprintf("ip -%d rule add fwmark %#x/%#x lookup %d", f, p.Mark, p.Mask, p.Table)
		if p.Priority != 0 {
			line += fmt.Sprintf(" pref %d", p.Priority)
		}
		lines = append(lines, line)
	}
	for _, l := range r.Routes {
		lines = append(lines, fmt.Sprintf("ip -%d route add local default dev lo table %d", f, l.Table))
	}
	for _, words := range r.Intruders {
		lines = append(lines, fmt.Sprintf("ip -%d %s (of others, before ours)", f, words))
	}
	return lines
}

// parseLine reads one line of lines into the routing; ok is false where the
// line is something else.
func (r *Routing) parseLine(f Family, line string) (ok bool) {
	var addr string
	var p PolicyRule
	var l LocalRoute
	if line == fmt.Sprintf("ip -%d rule add unreachable", f) {
		r.Unreachable = true
		return true
	}
	if scan(line, "ip -%d address add %s dev lo", f, &addr) {
		prefix, err := netip.ParsePrefix(addr)
		if err == nil {
			r.Addresses = append(r.Addresses, prefix)
		}
		return err == nil
	}
	if scan(line, "ip -%d rule add fwmark 0x%x/0x%x lookup %d pref %d", f, &p.Mark, &p.Mask, &p.Table, &p.Priority) {
		r.Rules = append(r.Rules, p)
		return true
	}
	if scan(line, "ip -%d rule add fwmark 0x%x/0x%x lookup %d", f, &p.Mark, &p.Mask, &p.Table) {
		r.Rules = append(r.Rules, p)
		return true
	}
	if scan(line, "ip -%d route add local default dev lo table %d", f, &l.Table) {
		r.Routes = append(r.Routes, l)
		return true
	}
	return false
}

// scan is Sscanf for a line that begins with the family's number.
func scan(line, format string, f Family, into ...any) bool {
	var family Family
	n, err := fmt.Sscanf(line, format, append([]any{&family}, into...)...)
	return err == nil && n == len(into)+1 && family == f
}

func (r *Routing) canonical() {
	slices.SortFunc(r.Addresses, netip.Prefix.Compare)
	slices.SortFunc(r.Rules, func(a, b PolicyRule) int {
		return cmp.Or(cmp.Compare(a.Mark, b.Mark), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Priority, b.Priority))
	})
	slices.SortFunc(r.Routes, func(a, b LocalRoute) int { return cmp.Compare(a.Table, b.Table) })
}

// local reports whether a packet with the mark is routed to this host,
// whatever its destination.
func (r Routing) local(mark uint32) bool {
	for _, p := range r.Rules {
		if mark&p.Mask == p.Mark && slices.Contains(r.Routes, LocalRoute{p.Table}) {
			return true
		}
	}
	return false
}
