package kernel

import (
	"context"
	"fmt"
	"slices"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// change leads from what one family holds to what is wanted of it.
type change struct {
	have, want   ruleset.RuleSet
	rules        bool        // they differ
	tx           Transaction // of iptables' tables
	add, remove  ruleset.Routing
	leavesTables bool // Shunt made tables that will be empty
	rulesOnly    bool // the routing is another side's
	readBack     bool
	now          ruleset.RuleSet // what the namespace held when it was read back
}

func newChange(ns Namespace, have, want ruleset.RuleSet) change {
	want = asRead(ns, want)
	next := change{
		have: have, want: want,
		add: missing(want.Routing, have.Routing), remove: missing(have.Routing, want.Routing),
	}
	if ns.Native() {
		next.rules = !withoutRouting(want).Equal(withoutRouting(have))
		return next
	}
	next.tx = planTables(have, want)
	next.rules = !next.tx.Empty()
	next.leavesTables = slices.ContainsFunc(have.Tables, func(t ruleset.Table) bool { return leftEmpty(t, tableOf(want, t.Name)) })
	return next
}

func withoutRouting(rs ruleset.RuleSet) ruleset.RuleSet {
	rs.Routing = ruleset.Routing{}
	return rs
}

// empty reports whether there is nothing to do, not even to complete a change that
// was cut short.
func (c change) empty() bool { return c.done() && !c.have.Routing.Unreachable }

// done reports whether the rules and routing are as wanted.
func (c change) done() bool {
	return !c.rules && empty(c.add) && empty(c.remove) && !c.leavesTables
}

func empty(r ruleset.Routing) bool {
	return len(r.Addresses)+len(r.Rules)+len(r.Routes)+len(r.Settings) == 0
}

// apply carries the change of iptables' tables out.
func (c *change) apply(ctx context.Context, ns Namespace) error {
	if c.done() {
		c.now = c.have
		c.now.Routing.Unreachable = false
		return nil
	}
	if !empty(c.add) {
		if err := ns.AddRouting(c.want.Family, c.add); err != nil {
			return fmt.Errorf("adding the routing: %w", err)
		}
	}
	if c.rules {
		if err := ns.Restore(ctx, c.tx); err != nil {
			return fmt.Errorf("writing the rules: %w", err)
		}
	}
	if !empty(c.remove) {
		if err := ns.RemoveRouting(c.want.Family, c.remove); err != nil {
			return fmt.Errorf("removing the routing: %w", err)
		}
	}
	if c.leavesTables {
		if err := ns.DeleteTables(ctx, c.want.Family); err != nil {
			return fmt.Errorf("deleting the tables that Shunt made: %w", err)
		}
	}
	if !c.readBack {
		return nil
	}
	return c.check(ctx, ns)
}

// check compares what the namespace holds now with what was wanted.
func (c *change) check(ctx context.Context, ns Namespace) error {
	var err error
	if c.now, err = c.read(ctx, ns); err != nil {
		return fmt.Errorf("reading the rules back: %w", err)
	}
	c.now.Routing.Unreachable = false
	if left := newChange(ns, c.now, c.want); !left.empty() {
		return fmt.Errorf("the namespace does not hold what was written: %q", ruleset.Diff(left.want, owned(ns, c.now)))
	}
	return nil
}

// read returns what the change is about, as it is now.
func (c *change) read(ctx context.Context, ns Namespace) (ruleset.RuleSet, error) {
	if c.rulesOnly {
		return ns.Rules(ctx, c.want.Family)
	}
	return read(ctx, ns, c.want.Family)
}

// missing returns what a has and b has not. Unreachable is left out: it is no part
// of a rule set.
func missing(a, b ruleset.Routing) ruleset.Routing {
	return ruleset.Routing{
		Addresses: without(a.Addresses, b.Addresses),
		Rules:     without(a.Rules, b.Rules),
		Routes:    without(a.Routes, b.Routes),
		Settings:  without(a.Settings, b.Settings),
	}
}

func without[T comparable](a, b []T) []T {
	var rest []T
	for _, v := range a {
		if !slices.Contains(b, v) {
			rest = append(rest, v)
		}
	}
	return rest
}
