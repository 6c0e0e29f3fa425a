package ruleset

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Routing is what a rule set needs besides netfilter. Each part prints as the
// arguments of ip(8) or sysctl(8).
type Routing struct {
	Addresses []netip.Prefix // on lo
	Rules     []PolicyRule
	Routes    []LocalRoute
	// Settings are the sysctls of the namespace that are 1, and are 0 in a new one.
	Settings []string
	// Unreachable cuts the host off while its rules are changed. Nothing is routed
	// beyond its own addresses: no connection to or from outside can be made, and
	// existing ones stall.
	Unreachable bool
	// Intruders are rules and routes of others that decide before ours do, in the
	// words of ip(8). A rule set that is built has none.
	Intruders []string
}

// PolicyRule sends packets to a routing table: those with a mark, or those from
// some address whose sockets are bound to an interface.
type PolicyRule struct {
	Mark, Mask uint32 // a packet matches when its mark, masked, is Mark
	// Source contains the packet's source address; the zero value contains any.
	Source netip.Prefix
	// OutInterface is the interface that the sending socket is bound to
	// (SO_BINDTODEVICE). "" matches every packet.
	OutInterface string
	Table        uint32
	// Narrowed is what else a packet has to match, in the words of ip(8), if
	// somebody has changed the rule. A rule that is built has none.
	Narrowed string
	// Priority is 0 in a rule set that is built: directly after the rule of the
	// local table, which is older. A greater one comes later.
	Priority uint32
}

// LocalRoute makes every address of the family local, on lo, in one table. A packet
// that it routes is given to a socket of this host.
type LocalRoute struct {
	Table uint32
	// Changed is what the route is instead, in the words of ip(8), if somebody has
	// changed it. A route that is built has none.
	Changed string
}

// Lines prints the routing, one command of ip(8) or sysctl(8) a line.
func (r Routing) Lines(family Family) []string {
	var lines []string
	if r.Unreachable {
		lines = append(lines, fmt.Sprintf("ip -%d rule add unreachable", family))
	}
	for _, a := range r.Addresses {
		lines = append(lines, fmt.Sprintf("ip -%d address add %s dev lo", family, a))
	}
	for _, p := range r.Rules {
		lines = append(lines, fmt.Sprintf("ip -%d rule add %s", family, p))
	}
	for _, l := range r.Routes {
		lines = append(lines, fmt.Sprintf("ip -%d route add %s table %d", family, cmp.Or(l.Changed, "local default dev lo"), l.Table))
	}
	for _, name := range r.Settings {
		lines = append(lines, "sysctl "+name+"=1")
	}
	for _, intruder := range r.Intruders {
		lines = append(lines, fmt.Sprintf("ip -%d %s (of others, before ours)", family, intruder))
	}
	return lines
}

// String prints the rule as it follows "ip rule add".
func (p PolicyRule) String() string {
	var args []string
	if p.Source.IsValid() {
		args = append(args, "from", p.Source.String())
	}
	if p.Mark != 0 || p.Mask != 0 {
		args = append(args, "fwmark", fmt.Sprintf("%#x/%#x", p.Mark, p.Mask))
	}
	if p.OutInterface != "" {
		args = append(args, "oif", p.OutInterface)
	}
	if p.Narrowed != "" {
		args = append(args, p.Narrowed)
	}
	args = append(args, "lookup", strconv.FormatUint(uint64(p.Table), 10))
	if p.Priority != 0 {
		args = append(args, "pref", strconv.FormatUint(uint64(p.Priority), 10))
	}
	return strings.Join(args, " ")
}

// parsePolicyRule reads what String prints.
func parsePolicyRule(text string) (rule PolicyRule, ok bool) {
	words := strings.Fields(text)
	if len(words)%2 != 0 {
		return rule, false
	}
	for pair := range slices.Chunk(words, 2) {
		var err error
		switch key, value := pair[0], pair[1]; key {
		case "from":
			rule.Source, err = netip.ParsePrefix(value)
		case "fwmark":
			rule.Mark, rule.Mask, err = parseMark(value)
		case "oif":
			rule.OutInterface = value
		case "lookup":
			rule.Table, err = parseUint32(value)
		case "pref":
			rule.Priority, err = parseUint32(value)
		default:
			return rule, false
		}
		if err != nil {
			return rule, false
		}
	}
	return rule, true
}

// parseLine reads one line of Lines into the routing. It returns false if the line
// is something else.
func (r *Routing) parseLine(family Family, line string) (ok bool) {
	var addr string
	var route LocalRoute
	if setting, is := strings.CutPrefix(line, "sysctl "); is {
		name, on := strings.CutSuffix(setting, "=1")
		if on {
			r.Settings = append(r.Settings, name)
		}
		return on
	}
	if line == fmt.Sprintf("ip -%d rule add unreachable", family) {
		r.Unreachable = true
		return true
	}
	if scan(line, "ip -%d address add %s dev lo", family, &addr) {
		prefix, err := netip.ParsePrefix(addr)
		if err == nil {
			r.Addresses = append(r.Addresses, prefix)
		}
		return err == nil
	}
	if text, isRule := strings.CutPrefix(line, fmt.Sprintf("ip -%d rule add ", family)); isRule {
		p, ok := parsePolicyRule(text)
		if ok {
			r.Rules = append(r.Rules, p)
		}
		return ok
	}
	if scan(line, "ip -%d route add local default dev lo table %d", family, &route.Table) {
		r.Routes = append(r.Routes, route)
		return true
	}
	return false
}

// scan applies Sscanf to a line that begins with the family's number.
func scan(line, format string, f Family, into ...any) bool {
	var family Family
	n, err := fmt.Sscanf(line, format, append([]any{&family}, into...)...)
	return err == nil && n == len(into)+1 && family == f
}

func (r *Routing) canonical() {
	slices.Sort(r.Settings)
	slices.SortFunc(r.Addresses, netip.Prefix.Compare)
	slices.SortFunc(r.Rules, func(a, b PolicyRule) int {
		return cmp.Or(cmp.Compare(a.Mark, b.Mark), cmp.Compare(a.Mask, b.Mask), a.Source.Compare(b.Source),
			cmp.Compare(a.OutInterface, b.OutInterface), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Priority, b.Priority),
			cmp.Compare(a.Narrowed, b.Narrowed))
	})
	slices.SortFunc(r.Routes, func(a, b LocalRoute) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Changed, b.Changed))
	})
}

// decidingRule returns the policy rule for which the packet is routed to this host,
// whatever its destination; nil if there is none.
func (h *traversal) decidingRule() *PolicyRule {
	routing := &h.stack.routing
	i := slices.IndexFunc(routing.Rules, func(p PolicyRule) bool {
		return p.Narrowed == "" && slices.Contains(routing.Routes, LocalRoute{Table: p.Table}) &&
			h.marked(p.Mark, p.Mask) &&
			(!p.Source.IsValid() || h.sourceIn(p.Source)) &&
			(p.OutInterface == "" || h.boundTo(p.OutInterface))
	})
	if i < 0 {
		return nil
	}
	return &routing.Rules[i]
}
