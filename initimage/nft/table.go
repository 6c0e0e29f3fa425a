package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// TableName is the name of Shunt's table, in the family ip and in the family ip6.
// The kernel takes both in one transaction. One table of the family inet could hold
// the rules of both, but a packet would meet those of the other family too, and
// kernels before 5.2 have no nat there.
const TableName = "shunt"

// Table is Shunt's table of one family. It is made, replaced and deleted as a
// whole. Without chains there is none.
type Table struct {
	Family ruleset.Family
	Sets   []Set
	Chains []Chain // base chains come after the chains that they jump to
}

// Chain is a list of rules.
type Chain struct {
	Name  string
	Hook  *Hook // of a base chain; nil for one that others jump to
	Rules []Rule
}

// Hook is where the kernel calls a base chain.
type Hook struct {
	Type     string // filter, nat or route
	Name     string // prerouting, input, output
	Priority int
}

// outermost is beyond the priority of any chain.
const outermost = 1 << 20

// Base returns the same in iptables' terms. The hooks of an interface come before or
// after all others.
func (h Hook) Base() *ruleset.Base {
	base := &ruleset.Base{Hook: strings.ToUpper(h.Name), Priority: h.Priority, NAT: h.Type == "nat", Route: h.Type == "route"}
	switch h.Name {
	case "ingress":
		base.Hook, base.Priority = "PREROUTING", -outermost
	case "egress":
		base.Hook, base.Priority = "POSTROUTING", outermost
	}
	return base
}

// Rule applies its target to the packets that all its matches accept, and that its
// set contains.
type Rule struct {
	Matches []ruleset.Match
	Set     *Set // nil for none
	Target  ruleset.Target
	Comment string
}

// hooks are the base chains, by the table and the built-in chain of iptables that
// they stand for. Each comes directly before iptables' own table at the same hook:
// a rule of others that accepts a packet must not come before ours.
var hooks = map[string]Hook{
	"raw PREROUTING":    {"filter", "prerouting", -301},
	"raw OUTPUT":        {"filter", "output", -301},
	"mangle PREROUTING": {"filter", "prerouting", -151},
	"mangle OUTPUT":     {"route", "output", -151},
	"nat PREROUTING":    {"nat", "prerouting", -101},
	"nat OUTPUT":        {"nat", "output", -101},
	"filter INPUT":      {"filter", "input", -1},
}

// HookOf returns where the kernel calls the chain that stands for a built-in chain
// of iptables.
func HookOf(table, chain string) (hook Hook, known bool) {
	hook, known = hooks[table+" "+chain]
	return hook, known
}

// ChainName returns the name of a chain. The chains of all of iptables' tables are
// in one table here.
func ChainName(table, chain string) string { return table + "_" + chain }

// Nobody is the comment of the rule that follows each tproxy. iptables' TPROXY
// drops what nobody listens for. nft's goes on with the next rule, and the packet
// would get to the app past the proxy.
const Nobody = "shunt: nobody listens there"

// Compile returns the table of a rule set. Every rule set that is built has one. It
// is an error if a rule has what no rule that is built has.
func Compile(rs ruleset.RuleSet) (Table, error) {
	table := Table{Family: rs.Family}
	var bases []Chain
	for _, t := range rs.Tables {
		for _, c := range t.Chains {
			chain := Chain{Name: ChainName(t.Name, c.Name)}
			var err error
			if chain.Rules, err = table.rules(t.Name, chain.Name, c.Rules); err != nil {
				return Table{}, fmt.Errorf("%s chain %s of table %s: %w", rs.Family, c.Name, t.Name, err)
			}
			if !c.Builtin() {
				table.Chains = append(table.Chains, chain)
				continue
			}
			hook, known := HookOf(t.Name, c.Name)
			if !known {
				return Table{}, fmt.Errorf("%s chain %s of table %s: no rule of Shunt is in it", rs.Family, c.Name, t.Name)
			}
			chain.Hook = &hook
			bases = append(bases, chain)
		}
	}
	table.Chains = append(table.Chains, bases...)
	return table, nil
}

// rules translates the rules of a chain, with one rule for a group.
func (t *Table) rules(inTable, chain string, rules []ruleset.Rule) ([]Rule, error) {
	var all []Rule
	for _, g := range groups(rules) {
		compiled := Rule{Matches: g.matches, Target: g.target, Comment: g.comment}
		if g.set != nil {
			g.set.Name = fmt.Sprintf("%s_%d", strings.ToLower(chain), len(t.Sets)+1)
			t.Sets = append(t.Sets, *g.set)
			compiled.Set = g.set
		}
		if err := check(t.Family, compiled); err != nil {
			return nil, fmt.Errorf("%s: %w", ruleset.Rule{Matches: g.matches, Target: g.target, Comment: g.comment}, err)
		}
		if jump, is := g.target.(ruleset.Jump); is {
			jump.Chain = ChainName(inTable, jump.Chain)
			compiled.Target = jump
		}
		all = append(all, compiled)
		if _, is := g.target.(ruleset.TProxy); is {
			all = append(all, nobody(compiled))
		}
	}
	return all, nil
}

// nobody returns the rule behind a tproxy. One that sees every packet of a connection
// goes on with the answers to connections that were opened here, too.
func nobody(proxied Rule) Rule {
	next := Rule{Matches: proxied.Matches, Set: proxied.Set, Target: ruleset.Drop, Comment: Nobody}
	if everyPacket(proxied.Target) {
		next.Matches = append(slices.Clip(next.Matches), ruleset.SYN{})
	}
	return next
}

// everyPacket reports whether a target is a tproxy that also sees packets which open
// no connection: those of Shunt that set a mark.
func everyPacket(target ruleset.Target) bool {
	proxied, is := target.(ruleset.TProxy)
	return is && proxied.Mask != 0
}

// maxComment is the size of a comment that nft(8) prints (libnftnl's
// NFTNL_UDATA_COMMENT_MAXLEN), without its final zero.
const maxComment = 127

// check returns an error for what cannot be printed or written.
func check(family ruleset.Family, r Rule) error {
	if len(r.Comment) > maxComment || strings.ContainsAny(r.Comment, "\"\\\n") {
		return fmt.Errorf("its comment cannot be one of nft's")
	}
	for _, m := range r.Matches {
		if !knownMatch(m) {
			return fmt.Errorf("no rule of Shunt has the match %s", ruleset.Rule{Matches: []ruleset.Match{m}})
		}
	}
	if !knownTarget(family, r.Target) {
		return fmt.Errorf("no rule of Shunt has its target")
	}
	return nil
}

func knownMatch(m ruleset.Match) bool {
	switch m := m.(type) {
	case ruleset.Source, ruleset.Destination, ruleset.InInterface, ruleset.OutInterface, ruleset.SYN, ruleset.Owner,
		ruleset.Mark, ruleset.SocketMark, ruleset.AddressType:
		return true
	case ruleset.Protocol:
		return m.Name == "tcp" || m.Name == "udp"
	case ruleset.Ports:
		return len(m.Ranges) == 1
	case ruleset.Conntrack:
		return !slices.ContainsFunc(m.States, func(s ruleset.State) bool { return !slices.Contains(states, s) })
	}
	return false
}

var states = []ruleset.State{ruleset.Invalid, ruleset.Established, ruleset.Related, ruleset.New, ruleset.Untracked}

func knownTarget(family ruleset.Family, t ruleset.Target) bool {
	switch t := t.(type) {
	case ruleset.Verdict, ruleset.Jump, ruleset.Nowhere, ruleset.SetMark, ruleset.ConntrackZone:
		return true
	case ruleset.Redirect:
		return t.Port != 0
	case ruleset.TProxy:
		return (t.Mask == allBits || t.Mark == 0 && t.Mask == 0) && t.Address == anyAddress(family)
	case ruleset.SaveMark:
		return t.Masks == ruleset.Masks{}
	case ruleset.RestoreMark:
		return t.Masks == ruleset.Masks{}
	case ruleset.Reject:
		return t.With == map[ruleset.Family]string{
			ruleset.IPv4: "icmp-port-unreachable", ruleset.IPv6: "icmp6-port-unreachable"}[family]
	}
	return false
}

func anyAddress(family ruleset.Family) netip.Addr {
	if family == ruleset.IPv6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}
