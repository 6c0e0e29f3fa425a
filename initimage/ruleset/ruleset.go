package ruleset

import (
	"iter"
	"slices"
	"strings"
)

// ChainPrefix begins the name of every chain that Shunt makes, so that its rules
// can be told from all others in a namespace.
const ChainPrefix = "SHUNT_"

// MadeChain is an empty chain that marks a table as made by Shunt, so that the
// table can be deleted with the last of our rules. It is no part of a rule set.
const MadeChain = ChainPrefix + "MADE_TABLE"

// RuleSet holds the netfilter rules and the routing of one family.
type RuleSet struct {
	Family  Family
	Tables  []Table // in canonical order: raw, mangle, nat, filter
	Routing Routing
	// Party is whose the rules are; "" for a set that holds Shunt's.
	Party string
}

// Table is one netfilter table.
type Table struct {
	Name   string
	Chains []Chain // built-in chains in hook order, then the others by name
}

// Chain is a list of rules.
type Chain struct {
	Name   string
	Policy string // of a built-in chain: ACCEPT or DROP; "" if it is not known
	Rules  []Rule
	Base   *Base // of a chain of a native nft table that the kernel calls
}

// Rule applies its target to the packets that all its matches accept.
type Rule struct {
	Matches []Match // in canonical order
	Target  Target  // nil counts packets and does nothing
	Comment string  // why the rule is there; "" for none
	// Packets are those that the rule has counted; nil if that is not known. They are
	// no part of the rule: neither printed nor compared.
	Packets *uint64
}

// tableOrder is the order in which a packet meets the tables at one hook.
var tableOrder = []string{"raw", "mangle", "nat", "filter", "security"}

// builtinOrder is the order of the hooks in the kernel (linux/netfilter.h).
var builtinOrder = []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

// Builtin reports whether the chain is one that the kernel calls.
func (c Chain) Builtin() bool { return slices.Contains(builtinOrder, c.Name) }

// Chain returns the named chain of the named table, or nil.
func (rs *RuleSet) Chain(table, chain string) *Chain {
	for i := range rs.Tables {
		if rs.Tables[i].Name == table {
			return rs.Tables[i].chain(chain)
		}
	}
	return nil
}

func (t *Table) chain(name string) *Chain {
	for i := range t.Chains {
		if t.Chains[i].Name == name {
			return &t.Chains[i]
		}
	}
	return nil
}

// Rules yields every rule with its place, in the order of the tables and chains.
func (rs RuleSet) Rules() iter.Seq[Step] {
	return func(yield func(Step) bool) {
		for _, t := range rs.Tables {
			table := rs.TableName(t)
			for _, c := range t.Chains {
				for i, r := range c.Rules {
					if !yield(Step{table, c.Name, i + 1, r, rs.Party != "" || c.foreign(r)}) {
						return
					}
				}
			}
		}
	}
}

// add appends rules to a chain, and creates the chain if it is missing.
func (t *Table) add(chain string, rules ...Rule) {
	c := t.chain(chain)
	if c == nil {
		t.Chains = append(t.Chains, Chain{Name: chain})
		c = &t.Chains[len(t.Chains)-1]
	}
	c.Rules = append(c.Rules, rules...)
}

// insert puts rules at the head of a chain, and creates the chain if it is missing.
func (t *Table) insert(chain string, rules ...Rule) {
	t.add(chain)
	c := t.chain(chain)
	c.Rules = append(rules, c.Rules...)
}

// Owned returns Shunt's part of the rule set: its chains, the rules of built-in
// chains that jump to them, and its routing.
func (rs RuleSet) Owned() RuleSet {
	own := RuleSet{Family: rs.Family, Routing: rs.Routing}
	for _, t := range rs.Tables {
		table := Table{Name: t.Name}
		for _, c := range t.Chains {
			if c.Name == MadeChain {
				continue
			}
			if ownedChain(c.Name) {
				table.Chains = append(table.Chains, c)
				continue
			}
			if rules := ownedRules(c.Rules); len(rules) > 0 {
				table.Chains = append(table.Chains, Chain{Name: c.Name, Rules: rules})
			}
		}
		if len(table.Chains) > 0 {
			own.Tables = append(own.Tables, table)
		}
	}
	return own
}

// Foreign returns the part of the rule set that is not Shunt's.
func (rs RuleSet) Foreign() RuleSet {
	foreign := RuleSet{Family: rs.Family, Party: rs.Party}
	for _, t := range rs.Tables {
		table := Table{Name: t.Name}
		for _, c := range t.Chains {
			if !ownedChain(c.Name) {
				c.Rules = slices.DeleteFunc(slices.Clone(c.Rules), Rule.Owned)
				table.Chains = append(table.Chains, c)
			}
		}
		foreign.Tables = append(foreign.Tables, table)
	}
	return foreign
}

// Before returns the rule set with that of others behind it: in built-in chains,
// which both may have, these rules come first.
func (rs RuleSet) Before(others RuleSet) RuleSet {
	all := RuleSet{Family: rs.Family, Routing: rs.Routing, Party: rs.Party}
	for _, t := range others.Tables {
		all.Tables = append(all.Tables, Table{t.Name, slices.Clone(t.Chains)})
	}
	for _, t := range rs.Tables {
		i := slices.IndexFunc(all.Tables, func(of Table) bool { return of.Name == t.Name })
		if i < 0 {
			all.Tables = append(all.Tables, t)
			continue
		}
		for _, c := range t.Chains {
			if theirs := all.Tables[i].chain(c.Name); theirs != nil {
				theirs.Rules = slices.Concat(c.Rules, theirs.Rules)
			} else {
				all.Tables[i].Chains = append(all.Tables[i].Chains, c)
			}
		}
	}
	all.Canonical()
	return all
}

// foreign reports whether a rule of the chain is not ours, in a table that holds ours.
func (c *Chain) foreign(r Rule) bool { return !ownedChain(c.Name) && !r.Owned() }

func ownedChain(name string) bool { return strings.HasPrefix(name, ChainPrefix) }

func ownedRules(rules []Rule) []Rule {
	var own []Rule
	for _, r := range rules {
		if r.Owned() {
			own = append(own, r)
		}
	}
	return own
}

// ownedComment begins the comment of each of our rules in a built-in chain.
const ownedComment = "shunt: "

// Owned reports whether a rule in a chain of others is ours: a jump to a chain of
// ours, or a rule whose comment says so.
func (r Rule) Owned() bool {
	jump, ok := r.Target.(Jump)
	return ok && ownedChain(jump.Chain) || strings.HasPrefix(r.Comment, ownedComment)
}

// Canonical sorts tables, chains and matches, so that equal rule sets print alike.
// It keeps the order of rules, which has a meaning.
func (rs *RuleSet) Canonical() {
	slices.SortStableFunc(rs.Tables, func(a, b Table) int {
		return slices.Index(tableOrder, a.Name) - slices.Index(tableOrder, b.Name)
	})
	for _, t := range rs.Tables {
		slices.SortStableFunc(t.Chains, compareChains)
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				slices.SortStableFunc(r.Matches, func(a, b Match) int { return a.rank() - b.rank() })
			}
		}
	}
	rs.Routing.canonical()
}

func compareChains(a, b Chain) int {
	if a.Builtin() != b.Builtin() {
		if a.Builtin() {
			return -1
		}
		return 1
	}
	if a.Builtin() {
		return slices.Index(builtinOrder, a.Name) - slices.Index(builtinOrder, b.Name)
	}
	return strings.Compare(a.Name, b.Name)
}

// Empty reports whether the set has neither a rule nor a policy that drops.
func (rs RuleSet) Empty() bool {
	for _, t := range rs.Tables {
		for _, c := range t.Chains {
			if len(c.Rules) > 0 || c.Policy == string(Drop) {
				return false
			}
		}
	}
	return true
}
