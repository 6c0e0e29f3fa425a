package kernel

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Transaction is the input of one iptables-restore --noflush. It changes the tables
// it names and leaves everything else as it is. The kernel takes each table whole
// or not at all.
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

// without returns the transaction without the steps of one chain.
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

// madeAndEmpty reports whether Shunt made a table and it holds nothing but the mark
// that says so.
func madeAndEmpty(t ruleset.Table) bool {
	for _, c := range t.Chains {
		if c.Name != ruleset.MadeChain && (!c.Builtin() || c.Policy == string(ruleset.Drop)) || len(c.Rules) > 0 {
			return false
		}
	}
	return madeByShunt(t)
}

// madeByShunt reports whether Shunt made a table.
func madeByShunt(t ruleset.Table) bool {
	return slices.ContainsFunc(t.Chains, func(c ruleset.Chain) bool { return c.Name == ruleset.MadeChain })
}

// leftEmpty reports whether a table that Shunt made will hold nothing once it is as
// wanted.
func leftEmpty(have, want ruleset.Table) bool {
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

// planTables returns the change from what a namespace holds to what is wanted of Shunt's
// rules. In each table it fills the chains first, and inserts the jumps last, at
// the head of the built-in chains: a rule of others that accepts a packet must not
// come before ours. It leaves out tables that are right already, so a second run
// changes nothing.
func planTables(have, want ruleset.RuleSet) Transaction {
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

// planTable plans one table: have is all of it, owned is Shunt's part. A table that
// others use as well loses the mark, so that it stays.
func planTable(have, owned, want ruleset.Table) TableChange {
	change := TableChange{Table: want.Name}
	if owned.String() != want.String() || !startsWith(have, want) {
		change = rewrite(have, owned, want)
	}
	if len(want.Chains) == 0 && madeByShunt(have) && !leftEmpty(have, want) {
		change.Steps = append(change.Steps, Step{Command: DeleteChain, Chain: ruleset.MadeChain})
	}
	return change
}

// rewrite plans a table that is not as wanted.
func rewrite(have, owned, want ruleset.Table) TableChange {
	change := TableChange{Table: want.Name}
	builtins, chains := partition(want)
	if len(have.Chains) == 0 {
		change.Steps = append(change.Steps, Step{Command: NewChain, Chain: ruleset.MadeChain})
	}
	for _, chain := range chains {
		change.Steps = append(change.Steps, Step{Command: NewChain, Chain: chain.Name})
	}
	for _, chain := range chains {
		for _, r := range chain.Rules {
			change.Steps = append(change.Steps, Step{Command: AppendRule, Chain: chain.Name, Rule: r})
		}
	}
	oldBuiltins, oldChains := partition(owned)
	for _, chain := range oldBuiltins {
		for _, r := range chain.Rules {
			change.Steps = append(change.Steps, Step{Command: DeleteRule, Chain: chain.Name, Rule: r})
		}
	}
	for _, chain := range builtins {
		for i, r := range chain.Rules {
			change.Steps = append(change.Steps, Step{Command: InsertRule, Chain: chain.Name, Number: i + 1, Rule: r})
		}
	}
	return TableChange{Table: want.Name, Steps: append(change.Steps, deleteStale(oldChains, chains)...)}
}

// deleteStale returns the steps that delete the chains that are no longer wanted.
// It empties all of them first: one may be the target of another.
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

// startsWith reports whether the wanted rules of each built-in chain are its first.
func startsWith(have, want ruleset.Table) bool {
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
