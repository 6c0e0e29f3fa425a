package kernel

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Fake is a Namespace in memory. Like the kernel, it takes a table's change whole
// or not at all. It can be told to fail.
type Fake struct {
	Sets map[ruleset.Family]ruleset.RuleSet
	// IsNative makes it a backend with a native table.
	IsNative bool
	// Former is the same namespace by another backend; its routing is not used. nil
	// if there is none.
	Former *Fake
	*Faults
}

// Faults tell a Fake to fail.
type Faults struct {
	// FailAt is the number, from 1, of the effect that fails without being carried
	// out. A Restore counts once for each table. 0 never fails.
	FailAt int
	// Kill makes every effect from FailAt on fail, as if the process were gone.
	Kill bool
	// Effects counts the effects that were tried.
	Effects int
}

// ErrFake is the error of the effect that a Fake was told to fail.
var ErrFake = errors.New("told to fail")

// NewFake returns a Fake without rules.
func NewFake() *Fake {
	f := &Fake{Sets: map[ruleset.Family]ruleset.RuleSet{}, Faults: &Faults{}}
	for _, family := range ruleset.Families {
		f.Sets[family] = ruleset.RuleSet{Family: family}
	}
	return f
}

func (f *Fake) effect() error {
	f.Effects++
	if f.Effects == f.FailAt || f.Kill && f.FailAt > 0 && f.Effects > f.FailAt {
		return fmt.Errorf("effect %d: %w", f.Effects, ErrFake)
	}
	return nil
}

// Rules implements Namespace.
func (f *Fake) Rules(_ context.Context, family ruleset.Family) (ruleset.RuleSet, error) {
	if err := f.effect(); err != nil {
		return ruleset.RuleSet{}, err
	}
	return ruleset.Parse(family, withoutRouting(f.Sets[family]).String())
}

// String implements Namespace.
func (f *Fake) String() string { return "a fake" }

// Native implements Namespace.
func (f *Fake) Native() bool { return f.IsNative }

// Replace implements Namespace.
func (f *Fake) Replace(want []ruleset.RuleSet) error {
	if err := f.effect(); err != nil {
		return err
	}
	for _, wanted := range want {
		if _, err := nft.Compile(wanted); err != nil {
			return err
		}
		wanted.Routing = f.Sets[wanted.Family].Routing
		f.Sets[wanted.Family] = wanted
	}
	return nil
}

// Formers implements Namespace.
func (f *Fake) Formers() []Namespace {
	if f.Former == nil {
		return nil
	}
	return []Namespace{f.Former}
}

// Restore implements Namespace.
func (f *Fake) Restore(_ context.Context, tx Transaction) error {
	set := f.Sets[tx.Family]
	for _, change := range tx.Tables {
		if err := f.effect(); err != nil {
			return err
		}
		table, err := change.applyTo(tableOf(set, change.Table))
		if err != nil {
			return err
		}
		set.Tables = slices.Clone(set.Tables)
		if i := slices.IndexFunc(set.Tables, func(t ruleset.Table) bool { return t.Name == change.Table }); i >= 0 {
			set.Tables[i] = table
		} else {
			set.Tables = append(set.Tables, table)
		}
		f.Sets[tx.Family] = set
	}
	return nil
}

// Routing implements Namespace.
func (f *Fake) Routing(family ruleset.Family) (ruleset.Routing, error) {
	return f.Sets[family].Routing, f.effect()
}

// AddRouting implements Namespace.
func (f *Fake) AddRouting(family ruleset.Family, add ruleset.Routing) error {
	return f.reroute(family, func(now ruleset.Routing) ruleset.Routing {
		unreachable := now.Unreachable || add.Unreachable
		add := missing(add, now)
		return ruleset.Routing{
			Unreachable: unreachable,
			Addresses:   slices.Concat(now.Addresses, add.Addresses),
			Rules:       slices.Concat(now.Rules, add.Rules),
			Routes:      slices.Concat(now.Routes, add.Routes),
			Settings:    slices.Concat(now.Settings, add.Settings),
		}
	})
}

// RemoveRouting implements Namespace.
func (f *Fake) RemoveRouting(family ruleset.Family, remove ruleset.Routing) error {
	return f.reroute(family, func(now ruleset.Routing) ruleset.Routing {
		left := missing(now, remove)
		left.Unreachable = now.Unreachable && !remove.Unreachable
		return left
	})
}

// DeleteTables implements Namespace.
func (f *Fake) DeleteTables(_ context.Context, family ruleset.Family) error {
	if err := f.effect(); err != nil {
		return err
	}
	rs := f.Sets[family]
	rs.Tables = slices.DeleteFunc(slices.Clone(rs.Tables), madeAndEmpty)
	f.Sets[family] = rs
	return nil
}

func (f *Fake) reroute(family ruleset.Family, to func(ruleset.Routing) ruleset.Routing) error {
	if err := f.effect(); err != nil {
		return err
	}
	rs := f.Sets[family]
	rs.Routing = to(rs.Routing)
	f.Sets[family] = rs
	return nil
}

// applyTo returns what iptables-restore --noflush would make of a table. It does
// not change the table it is given.
func (tc TableChange) applyTo(table ruleset.Table) (ruleset.Table, error) {
	chains := map[string][]ruleset.Rule{}
	var names []string
	for _, c := range table.Chains {
		names = append(names, c.Name)
		chains[c.Name] = slices.Clone(c.Rules)
	}
	for _, step := range tc.Steps {
		rules, known := chains[step.Chain]
		if builtin := (ruleset.Chain{Name: step.Chain}).Builtin(); !known && step.Command != NewChain && !builtin {
			return table, fmt.Errorf("%s: no chain %s", step, step.Chain)
		} else if !known {
			names = append(names, step.Chain)
		}
		next, err := step.applyTo(rules)
		if err != nil {
			return table, err
		}
		chains[step.Chain] = next
		if step.Command == DeleteChain {
			delete(chains, step.Chain)
			names = slices.DeleteFunc(names, func(n string) bool { return n == step.Chain })
		}
	}
	result := ruleset.Table{Name: table.Name}
	for _, name := range names {
		result.Chains = append(result.Chains, ruleset.Chain{Name: name, Policy: policy(table, name), Rules: chains[name]})
	}
	return result, nil
}

func policy(table ruleset.Table, chain string) string {
	for _, c := range table.Chains {
		if c.Name == chain {
			return c.Policy
		}
	}
	if (ruleset.Chain{Name: chain}).Builtin() {
		return string(ruleset.Accept)
	}
	return ""
}

func (s Step) applyTo(rules []ruleset.Rule) ([]ruleset.Rule, error) {
	switch s.Command {
	case NewChain:
		return nil, nil
	case AppendRule:
		return append(rules, s.Rule), nil
	case InsertRule:
		if s.Number < 1 || s.Number > len(rules)+1 {
			return nil, fmt.Errorf("%s: no place %d", s, s.Number)
		}
		return slices.Insert(rules, s.Number-1, s.Rule), nil
	case DeleteRule:
		i := slices.IndexFunc(rules, func(r ruleset.Rule) bool { return r.String() == s.Rule.String() })
		if i < 0 {
			return nil, fmt.Errorf("%s: no such rule", s)
		}
		return slices.Delete(rules, i, i+1), nil
	case DeleteChain:
		if len(rules) > 0 {
			return nil, fmt.Errorf("%s: chain is not empty", s)
		}
		return nil, nil
	}
	return nil, fmt.Errorf("unknown command %q", s.Command)
}
