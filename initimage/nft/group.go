package nft

import (
	"net/netip"
	"reflect"
	"slices"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Set is what a rule looks in: prefixes of the source or destination, or ports.
type Set struct {
	Name     string
	Source   bool                    // the source rather than the destination
	Prefixes []netip.Prefix          // sorted; none contains another
	Ports    interception.PortRanges // instead of prefixes
}

// group is consecutive rules that differ only in one prefix or in ports.
type group struct {
	matches []ruleset.Match // of all of them
	set     *Set            // nil if there is no list
	target  ruleset.Target
	comment string
}

// groups puts consecutive rules together. A packet that any rule of a group accepts
// has the same fate: rules that end the chain would have ended it, and doing the
// same twice is doing it once.
func groups(rules []ruleset.Rule) []group {
	var all []group
	for _, r := range rules {
		matches, list := split(r.Matches)
		next := group{matches: matches, set: list, target: r.Target, comment: r.Comment}
		if len(all) > 0 && all[len(all)-1].takes(next) {
			last := all[len(all)-1].set
			last.Prefixes = append(last.Prefixes, list.Prefixes...)
			last.Ports = append(last.Ports, list.Ports...)
			continue
		}
		all = append(all, next)
	}
	for i := range all {
		all[i].settle()
	}
	return all
}

// split takes what can be in a set out of matches: ports, if there are several, or
// else the first prefix or port.
func split(matches []ruleset.Match) (rest []ruleset.Match, list *Set) {
	place := -1
	for i, m := range matches {
		found := listOf(m)
		if found != nil && (list == nil || len(found.Ports) > 1) {
			place, list = i, found
		}
	}
	for i, m := range matches {
		if i != place {
			rest = append(rest, m)
		}
	}
	return rest, list
}

func listOf(m ruleset.Match) *Set {
	switch m := m.(type) {
	case ruleset.Source:
		if !m.Not {
			return &Set{Source: true, Prefixes: []netip.Prefix{m.Prefix}}
		}
	case ruleset.Destination:
		if !m.Not {
			return &Set{Prefixes: []netip.Prefix{m.Prefix}}
		}
	case ruleset.Ports:
		if !m.Not {
			return &Set{Source: m.Source, Ports: slices.Clone(m.Ranges)}
		}
	}
	return nil
}

// takes reports whether a rule that follows belongs to the group.
func (g group) takes(next group) bool {
	return g.set != nil && next.set != nil && g.set.Source == next.set.Source &&
		(g.set.Prefixes == nil) == (next.set.Prefixes == nil) &&
		g.comment == next.comment && reflect.DeepEqual(g.target, next.target) && reflect.DeepEqual(g.matches, next.matches)
}

// settle sorts and merges what is in the set. A set of a single value becomes a
// match again.
func (g *group) settle() {
	switch {
	case g.set == nil:
	case g.set.Prefixes != nil:
		if g.set.Prefixes = merge(g.set.Prefixes); len(g.set.Prefixes) == 1 {
			g.matches = append([]ruleset.Match{g.set.address(g.set.Prefixes[0])}, g.matches...)
			g.set = nil
		}
	default:
		if g.set.Ports = interception.NewPortRanges(g.set.Ports...); len(g.set.Ports) == 1 {
			g.matches = append(slices.Clip(g.matches), g.set.port())
			g.set = nil
		}
	}
}

func (s Set) address(p netip.Prefix) ruleset.Match {
	if s.Source {
		return ruleset.Source{Prefix: p}
	}
	return ruleset.Destination{Prefix: p}
}

func (s Set) port() ruleset.Match { return ruleset.Ports{Source: s.Source, Ranges: s.Ports} }

// merge sorts prefixes and leaves out those that others contain: the kernel takes
// no overlapping elements.
func merge(all []netip.Prefix) []netip.Prefix {
	all = slices.Clone(all)
	for i := range all {
		all[i] = all[i].Masked()
	}
	slices.SortFunc(all, netip.Prefix.Compare) // a wider prefix before those in it
	kept := all[:0]
	for _, p := range all {
		if len(kept) == 0 || !kept[len(kept)-1].Overlaps(p) {
			kept = append(kept, p)
		}
	}
	return kept
}

// Normal returns the rule set as its table says it: with lists sorted and merged,
// and ports in one match. It is what is read back of the table.
func Normal(rs ruleset.RuleSet) ruleset.RuleSet {
	normal := ruleset.RuleSet{Family: rs.Family, Routing: rs.Routing}
	for _, t := range rs.Tables {
		table := ruleset.Table{Name: t.Name}
		for _, c := range t.Chains {
			chain := ruleset.Chain{Name: c.Name}
			for _, g := range groups(c.Rules) {
				chain.Rules = append(chain.Rules, g.rules()...)
			}
			table.Chains = append(table.Chains, chain)
		}
		normal.Tables = append(normal.Tables, table)
	}
	normal.Canonical()
	return normal
}

// rules returns a rule for each prefix of the group's set, or one for all ports.
func (g group) rules() []ruleset.Rule {
	one := func(more ...ruleset.Match) ruleset.Rule {
		return ruleset.Rule{Matches: WithProtocol(slices.Concat(g.matches, more)), Target: g.target, Comment: g.comment}
	}
	switch {
	case g.set == nil:
		return []ruleset.Rule{one()}
	case g.set.Ports != nil:
		return []ruleset.Rule{one(g.set.port())}
	}
	var all []ruleset.Rule
	for _, p := range g.set.Prefixes {
		all = append(all, one(g.set.address(p)))
	}
	return all
}

// WithProtocol gives matches of ports the protocol whose ports they are, as
// iptables prints it.
func WithProtocol(matches []ruleset.Match) []ruleset.Match {
	protocol := ""
	for _, m := range matches {
		if p, is := m.(ruleset.Protocol); is && !p.Not {
			protocol = p.Name
		}
	}
	for i, m := range matches {
		if ports, is := m.(ruleset.Ports); is {
			ports.Protocol = protocol
			matches[i] = ports
		}
	}
	return matches
}
