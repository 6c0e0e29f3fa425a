package ruleset

import "slices"

// What a picture of the rules needs besides the rules themselves.

// Hooks returns the names of netfilter's hooks.
func Hooks() []string { return slices.Clone(builtinOrder) }

// BaseChain is a chain that the kernel calls.
type BaseChain struct {
	Table, Chain string // named as in a Step
}

// Bases returns the chains of a hook, in the kernel's order.
func (s *Stack) Bases(hook string) []BaseChain {
	var bases []BaseChain
	for _, b := range s.hooks[hook] {
		bases = append(bases, BaseChain{b.table, b.chain.Name})
	}
	return bases
}

// TableName returns the name that a Step has for a table of the set.
func (rs RuleSet) TableName(t Table) string { return tableName(rs.Party, t.Name) }

// JumpsTo returns the chain that the rule jumps to, or "".
func (r Rule) JumpsTo() string {
	jump, _ := r.jump()
	return jump.Chain
}
