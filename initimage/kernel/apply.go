package kernel

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Result says what Apply or Remove did.
type Result struct {
	Changed bool // false where the namespace was right already
	// Holds is all that the namespace holds now, as far as it has been read
	// since: nil where something was changed and not read back.
	Holds []ruleset.RuleSet
}

// Apply brings a namespace to the wanted rule sets, at most one of a family.
// All families are read and planned before any is written. Where a change
// fails, or with readBack the namespace does not hold what was written, what
// was there before is put back and the error is an ErrApply.
//
// A change takes several steps that the kernel takes one at a time: an ip rule,
// a table of one family. It may end after any of them, by a kill. So:
//
//  1. every family that changes is cut off from outside, by one ip rule;
//  2. its routing, tables and jumps are changed, and read back;
//  3. it is given back its ways, by taking that rule away.
//
// Before the first step nothing is changed. During the first, a family is as
// it was or cut off. During the second, all that change are cut off. During
// the third, each is cut off or intercepts fully. At no time does a family
// with new rules, or with none, carry traffic beside one that is half done.
// The next run finds the rule that cuts off, and ends the change. Nor does it
// find a proof of what was there before: that goes ahead of the first step, and
// comes with what the caller proves after the third.
func Apply(ctx context.Context, ns Namespace, want []ruleset.RuleSet, readBack bool) (Result, error) {
	var changes []change
	result := Result{}
	for _, rs := range want {
		have, err := read(ctx, ns, rs.Family)
		if err != nil {
			return Result{}, fmt.Errorf("%w: reading the %s rules: %w", ErrPreflight, rs.Family, err)
		}
		c := newChange(have, rs)
		if c.empty() {
			result.Holds = append(result.Holds, have)
			continue
		}
		c.readBack = readBack
		changes = append(changes, c)
	}
	if err := carryOut(ctx, ns, changes); err != nil {
		return Result{}, errors.Join(fmt.Errorf("%w: %w", ErrApply, err), undo(ctx, ns, changes))
	}
	result.Changed = len(changes) > 0
	for _, c := range changes {
		result.Holds = append(result.Holds, c.now)
	}
	if result.Changed && !readBack {
		result.Holds = nil
	}
	return result, nil
}

// Remove takes everything of Shunt's away, and the tables that it made.
func Remove(ctx context.Context, ns Namespace, families []ruleset.Family) (Result, error) {
	var want []ruleset.RuleSet
	for _, family := range families {
		want = append(want, ruleset.RuleSet{Family: family})
	}
	return Apply(ctx, ns, want, true)
}

// cutOff is the routing that keeps a family from outside.
var cutOff = ruleset.Routing{Unreachable: true}

// carryOut takes the three steps of Apply.
func carryOut(ctx context.Context, ns Namespace, changes []change) error {
	if err := cut(ns, changes); err != nil {
		return err
	}
	for i := range changes {
		if err := changes[i].run(ctx, ns); err != nil {
			return fmt.Errorf("%s: %w", changes[i].want.Family, err)
		}
	}
	for _, c := range changes {
		if err := ns.RemoveRouting(c.want.Family, cutOff); err != nil {
			return fmt.Errorf("%s: giving it back its ways: %w", c.want.Family, err)
		}
	}
	return nil
}

// cut cuts all families that change off from outside.
func cut(ns Namespace, changes []change) error {
	for _, c := range changes {
		if err := ns.AddRouting(c.want.Family, cutOff); err != nil {
			return fmt.Errorf("%s: cutting it off: %w", c.want.Family, err)
		}
	}
	return nil
}

// read returns what a namespace holds: all rules, and Shunt's routing.
func read(ctx context.Context, ns Namespace, family ruleset.Family) (ruleset.RuleSet, error) {
	text, err := ns.Save(ctx, family)
	if err != nil {
		return ruleset.RuleSet{}, err
	}
	rs, err := ruleset.Parse(family, text)
	if err != nil {
		return ruleset.RuleSet{}, fmt.Errorf("parsing the saved rules: %w", err)
	}
	rs.Routing, err = ns.Routing(family)
	return rs, err
}

// change is the way from what one family holds to what is wanted of it.
type change struct {
	have, want  ruleset.RuleSet
	tx          Transaction
	add, remove ruleset.Routing
	leaves      bool // tables that Shunt made and that will hold nothing
	readBack    bool
	now         ruleset.RuleSet // what the namespace was read to hold afterwards
}

func newChange(have, want ruleset.RuleSet) change {
	return change{
		have: have, want: want, tx: plan(have, want),
		add: lacking(want.Routing, have.Routing), remove: lacking(have.Routing, want.Routing),
		leaves: slices.ContainsFunc(have.Tables, func(t ruleset.Table) bool { return left(t, tableOf(want, t.Name)) }),
	}
}

// empty reports whether there is nothing to do, not even to end a change that
// was cut short.
func (c change) empty() bool { return c.done() && !c.have.Routing.Unreachable }

// done reports whether the rules and routing are as wanted.
func (c change) done() bool { return c.tx.Empty() && empty(c.add) && empty(c.remove) && !c.leaves }

func empty(r ruleset.Routing) bool { return len(r.Addresses)+len(r.Rules)+len(r.Routes) == 0 }

// run carries the change out, and reads it back if it is to. Routing that the rules rely on
// is there before them and goes after them.
func (c *change) run(ctx context.Context, ns Namespace) error {
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
	if !c.tx.Empty() {
		if err := ns.Restore(ctx, c.tx); err != nil {
			return fmt.Errorf("writing the rules: %w", err)
		}
	}
	if !empty(c.remove) {
		if err := ns.RemoveRouting(c.want.Family, c.remove); err != nil {
			return fmt.Errorf("removing the routing: %w", err)
		}
	}
	if c.leaves {
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
	if c.now, err = read(ctx, ns, c.want.Family); err != nil {
		return fmt.Errorf("reading the rules back: %w", err)
	}
	c.now.Routing.Unreachable = false
	if left := newChange(c.now, c.want); !left.empty() {
		return fmt.Errorf("the namespace does not hold what was written: %q", ruleset.Diff(c.want, c.now.Owned()))
	}
	return nil
}

// undo puts back what the changes found, by the same three steps: a family may
// have been given back its ways already. What could not be put back stays cut
// off. Its context is its own: what is half done is undone also when the
// caller gives up.
func undo(ctx context.Context, ns Namespace, changes []change) error {
	ctx = context.WithoutCancel(ctx)
	if err := cut(ns, changes); err != nil {
		return fmt.Errorf("nothing was put back: %w", err)
	}
	var errs []error
	for _, c := range slices.Backward(changes) {
		now, err := read(ctx, ns, c.want.Family)
		if err == nil {
			back := newChange(now, c.have.Owned())
			back.readBack = true
			err = back.run(ctx, ns)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s could not be put back, and stays cut off: %w", c.want.Family, err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for _, c := range changes {
		if c.have.Routing.Unreachable {
			continue // it was so before
		}
		if err := ns.RemoveRouting(c.want.Family, cutOff); err != nil {
			errs = append(errs, fmt.Errorf("%s stays cut off: %w", c.want.Family, err))
		}
	}
	return errors.Join(errs...)
}

// lacking returns what of a is not in b, but for what cuts off: that is no
// part of a rule set.
func lacking(a, b ruleset.Routing) ruleset.Routing {
	return ruleset.Routing{
		Addresses: without(a.Addresses, b.Addresses),
		Rules:     without(a.Rules, b.Rules),
		Routes:    without(a.Routes, b.Routes),
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
