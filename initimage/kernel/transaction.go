package kernel

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Transaction is the input of one iptables-restore --noflush: it changes the
// tables it names and leaves everything else as it is. The kernel takes each
// table whole or not at all.
type Transaction struct {
	Family ruleset.Family
	Tables []TableChange
}

// TableChange is the part of a Transaction that is one commit.
type TableChange struct {
	Table string
	Steps []Step
}

// Command is what a Step does, as iptables-restore spells it.
type Command string

// The commands of iptables-restore that a Transaction is made of.
const (
	NewChain    Command = ":"  // create a chain, or empty it
	AppendRule  Command = "-A" // add a rule at the end
	InsertRule  Command = "-I" // add a rule at Number
	DeleteRule  Command = "-D" // delete the first rule that equals this one
	DeleteChain Command = "-X" // delete an empty chain
)

// Step is one line of a table's change.
type Step struct {
	Command Command
	Chain   string
	Number  int          // of InsertRule, from 1
	Rule    ruleset.Rule // of AppendRule, InsertRule and DeleteRule
}

// Empty reports whether the transaction changes nothing.
func (tx Transaction) Empty() bool { return len(tx.Tables) == 0 }

// String prints the transaction as iptables-restore reads it.
func (tx Transaction) String() string {
	var b strings.Builder
	for _, t := range tx.Tables {
		b.WriteString("*" + t.Table + "\n")
		for _, s := range t.Steps {
			b.WriteString(s.String() + "\n")
		}
		b.WriteString("COMMIT\n")
	}
	return b.String()
}

// without returns the transaction without what it does to one chain.
func (tx Transaction) without(chain string) Transaction {
	rest := Transaction{Family: tx.Family}
	for _, t := range tx.Tables {
		t.Steps = slices.DeleteFunc(slices.Clone(t.Steps), func(s Step) bool { return s.Chain == chain })
		rest.Tables = append(rest.Tables, t)
	}
	return rest
}

// String prints the step as a line of iptables-restore.
func (s Step) String() string {
	switch s.Command {
	case NewChain:
		return ":" + s.Chain + " - [0:0]"
	case DeleteChain:
		return "-X " + s.Chain
	case InsertRule:
		return fmt.Sprintf("-I %s %d %s", s.Chain, s.Number, s.Rule)
	default:
		return string(s.Command) + " " + s.Chain + " " + s.Rule.String()
	}
}

// madeAndEmpty reports whether a table was made by Shunt and holds nothing but
// the mark that says so.
func madeAndEmpty(t ruleset.Table) bool {
	for _, c := range t.Chains {
		if c.Name != ruleset.MadeChain && (!c.Builtin() || c.Policy == string(ruleset.Drop)) || len(c.Rules) > 0 {
			return false
		}
	}
	return made(t)
}

// made reports whether a table was made by Shunt.
func made(t ruleset.Table) bool {
	return slices.ContainsFunc(t.Chains, func(c ruleset.Chain) bool { return c.Name == ruleset.MadeChain })
}

// left reports whether a table that Shunt made will hold nothing once what is
// wanted of it is there.
func left(have, want ruleset.Table) bool {
	if len(want.Chains) > 0 {
		return false
	}
	others := ruleset.Table{Name: have.Name}
	for _, c := range have.Chains {
		if c.Name == ruleset.MadeChain || !strings.HasPrefix(c.Name, ruleset.ChainPrefix) {
			c.Rules = slices.DeleteFunc(slices.Clone(c.Rules), ruleset.Rule.Owned)
			others.Chains = append(others.Chains, c)
		}
	}
	return madeAndEmpty(others)
}

// plan returns the change from what a namespace holds to what is wanted of
// Shunt's rules. In each table the chains are filled before the jumps are
// put, at the head of the built-in chains: a rule of somebody else that
// accepts a packet must not come before ours. Tables that are right already
// are not touched, so a second run changes nothing.
func plan(have, want ruleset.RuleSet) Transaction {
	tx := Transaction{Family: want.Family}
	for _, name := range []string{"raw", "mangle", "nat", "filter"} {
		change := planTable(tableOf(have, name), tableOf(have.Owned(), name), tableOf(want, name))
		if len(change.Steps) > 0 {
			tx.Tables = append(tx.Tables, change)
		}
	}
	return tx
}

func tableOf(rs ruleset.RuleSet, name string) ruleset.Table {
	for _, t := range rs.Tables {
		if t.Name == name {
			return t
		}
	}
	return ruleset.Table{Name: name}
}

// planTable plans one table; have is all of it, owned what of it is ours. A
// table that others have moved into is no longer one to take away.
func planTable(have, owned, want ruleset.Table) TableChange {
	change := TableChange{Table: want.Name}
	if owned.String() != want.String() || !leads(have, want) {
		change = rewrite(have, owned, want)
	}
	if len(want.Chains) == 0 && made(have) && !left(have, want) {
		change.Steps = append(change.Steps, Step{Command: DeleteChain, Chain: ruleset.MadeChain})
	}
	return change
}

// rewrite plans a table that is not as it is wanted.
func rewrite(have, owned, want ruleset.Table) TableChange {
	change := TableChange{Table: want.Name}
	builtins, chains := partition(want)
	if len(have.Chains) == 0 {
		change.Steps = append(change.Steps, Step{Command: NewChain, Chain: ruleset.MadeChain})
	}
	for _, c := range chains {
		change.Steps = append(change.Steps, Step{Command: NewChain, Chain: c.Name})
	}
	for _, c := range chains {
		for _, r := range c.Rules {
			change.Steps = append(change.Steps, Step{Command: AppendRule, Chain: c.Name, Rule: r})
		}
	}
	oldBuiltins, oldChains := partition(owned)
	for _, c := range oldBuiltins {
		for _, r := range c.Rules {
			change.Steps = append(change.Steps, Step{Command: DeleteRule, Chain: c.Name, Rule: r})
		}
	}
	for _, c := range builtins {
		for i, r := range c.Rules {
			change.Steps = append(change.Steps, Step{Command: InsertRule, Chain: c.Name, Number: i + 1, Rule: r})
		}
	}
	return TableChange{Table: want.Name, Steps: append(change.Steps, deleteStale(oldChains, chains)...)}
}

// deleteStale takes away the chains that are wanted no more. They are emptied
// first, all of them: one may be the target of another.
func deleteStale(old, wanted []ruleset.Chain) []Step {
	var empty, drop []Step
	for _, c := range old {
		if !slices.ContainsFunc(wanted, func(w ruleset.Chain) bool { return w.Name == c.Name }) {
			empty = append(empty, Step{Command: NewChain, Chain: c.Name})
			drop = append(drop, Step{Command: DeleteChain, Chain: c.Name})
		}
	}
	return append(empty, drop...)
}

// leads reports whether the wanted rules of each built-in chain are its first.
func leads(have, want ruleset.Table) bool {
	builtins, _ := partition(want)
	for _, c := range builtins {
		i := slices.IndexFunc(have.Chains, func(h ruleset.Chain) bool { return h.Name == c.Name })
		if i < 0 || len(have.Chains[i].Rules) < len(c.Rules) {
			return false
		}
		for n, r := range c.Rules {
			if have.Chains[i].Rules[n].String() != r.String() {
				return false
			}
		}
	}
	return true
}

func partition(t ruleset.Table) (builtins, chains []ruleset.Chain) {
	for _, c := range t.Chains {
		if c.Builtin() {
			builtins = append(builtins, c)
		} else {
			chains = append(chains, c)
		}
	}
	return builtins, chains
}
