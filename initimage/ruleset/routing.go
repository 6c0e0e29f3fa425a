package ruleset

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
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

// PolicyRule sends packets to a routing table: those that have a mark, or that
// sockets bound to an interface send from some address.
type PolicyRule struct {
	Mark, Mask uint32 // a packet matches when its mark, masked, is Mark
	// Source holds the packet's source address; the zero value holds any.
	Source netip.Prefix
	// OutInterface is the interface that the sending socket is bound to
	// (SO_BINDTODEVICE); "" matches all packets, of bound sockets or not.
	OutInterface string
	Table        uint32
	// Narrowed is what else a packet has to match, as ip(8) would say it, where
	// somebody has changed the rule. One that is built has none.
	Narrowed string
	// Priority is 0 in a rule set that is built: straight behind the rule of
	// the local table, which is there longer. A greater one comes later.
	Priority uint32
}

// LocalRoute makes every address of the family local, on lo, in one table: a
// packet that is routed by it is given to a socket of this host.
type LocalRoute struct {
	Table uint32
	// Changed is what the route is instead, as ip(8) would say it, where somebody
	// has changed it. One that is built has none.
	Changed string
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
		lines = append(lines, fmt.Sprintf("ip -%d rule add %s", f, p))
	}
	for _, l := range r.Routes {
		lines = append(lines, fmt.Sprintf("ip -%d route add %s table %d", f, cmp.Or(l.Changed, "local default dev lo"), l.Table))
	}
	for _, words := range r.Intruders {
		lines = append(lines, fmt.Sprintf("ip -%d %s (of others, before ours)", f, words))
	}
	return lines
}

// String prints the rule as it follows "ip rule add".
func (p PolicyRule) String() string {
	var words []string
	if p.Source.IsValid() {
		words = append(words, "from", p.Source.String())
	}
	if p.Mark != 0 || p.Mask != 0 {
		words = append(words, "fwmark", fmt.Sprintf("%#x/%#x", p.Mark, p.Mask))
	}
	if p.OutInterface != "" {
		words = append(words, "oif", p.OutInterface)
	}
	if p.Narrowed != "" {
		words = append(words, p.Narrowed)
	}
	words = append(words, "lookup", strconv.FormatUint(uint64(p.Table), 10))
	if p.Priority != 0 {
		words = append(words, "pref", strconv.FormatUint(uint64(p.Priority), 10))
	}
	return strings.Join(words, " ")
}

// parsePolicyRule reads what String prints.
func parsePolicyRule(text string) (p PolicyRule, ok bool) {
	words := strings.Fields(text)
	if len(words)%2 != 0 {
		return p, false
	}
	for pair := range slices.Chunk(words, 2) {
		var err error
		switch key, value := pair[0], pair[1]; key {
		case "from":
			p.Source, err = netip.ParsePrefix(value)
		case "fwmark":
			p.Mark, p.Mask, err = parseMark(value)
		case "oif":
			p.OutInterface = value
		case "lookup":
			p.Table, err = parseUint32(value)
		case "pref":
			p.Priority, err = parseUint32(value)
		default:
			return p, false
		}
		if err != nil {
			return p, false
		}
	}
	return p, true
}

// parseLine reads one line of lines into the routing; ok is false where the
// line is something else.
func (r *Routing) parseLine(f Family, line string) (ok bool) {
	var addr string
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
	if text, isRule := strings.CutPrefix(line, fmt.Sprintf("ip -%d rule add ", f)); isRule {
		p, ok := parsePolicyRule(text)
		if ok {
			r.Rules = append(r.Rules, p)
		}
		return ok
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
		return cmp.Or(cmp.Compare(a.Mark, b.Mark), cmp.Compare(a.Mask, b.Mask), a.Source.Compare(b.Source),
			cmp.Compare(a.OutInterface, b.OutInterface), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Priority, b.Priority),
			cmp.Compare(a.Narrowed, b.Narrowed))
	})
	slices.SortFunc(r.Routes, func(a, b LocalRoute) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Changed, b.Changed))
	})
}

// local reports whether a packet is routed to this host, whatever its
// destination. The socket that sends it is bound to an interface, or to "".
func (r Routing) local(src netip.Addr, mark uint32, bound string) bool {
	return slices.ContainsFunc(r.Rules, func(p PolicyRule) bool {
		return p.Narrowed == "" && mark&p.Mask == p.Mark &&
			(!p.Source.IsValid() || p.Source.Contains(src)) &&
			(p.OutInterface == "" || p.OutInterface == bound) &&
			slices.Contains(r.Routes, LocalRoute{Table: p.Table})
	})
}
