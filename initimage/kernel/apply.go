package kernel

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Result is what Apply or Remove did.
type Result struct {
	Changed bool // false if the namespace was right already
	// Holds is everything that the namespace holds now, as far as it has been read
	// since. It is nil if something was changed and not read back.
	Holds []ruleset.RuleSet
}

// Apply brings a namespace to the wanted rule sets, at most one of a family. It
// reads and plans all families before it writes any. If a change fails, or with
// readBack the namespace does not hold what was written, Apply puts back what was
// there before and returns an ErrApply.
//
// The kernel takes one ip rule, or one table of one family, at a time, and a run
// may be killed after any of them. So a change has three steps:
//
//  1. cut off every family that changes from outside, by one ip rule;
//  2. change its routing, tables and jumps, and read them back;
//  3. delete that ip rule again.
//
// Nothing is changed before the first step. During the first, a family is as it was
// or cut off. During the second, all families that change are cut off. During the
// third, each of them is cut off or fully intercepted. At no time does a family
// with new rules, or with none, carry traffic beside one that is half done. The
// next run finds the rule that cuts off, and completes the change. It finds no
// proof of the former rules either: the first step begins by deleting it, and the
// caller proves the new rules after the third.
func Apply(ctx context.Context, ns Namespace, want []ruleset.RuleSet, readBack bool) (Result, error) {
	var changes []change
	result := Result{}
	for _, wanted := range want {
		have, err := read(ctx, ns, wanted.Family)
		if err != nil {
			return Result{}, fmt.Errorf("%w: reading the %s rules: %w", ErrPreflight, wanted.Family, err)
		}
		next := newChange(have, wanted)
		if next.empty() {
			result.Holds = append(result.Holds, have)
			continue
		}
		next.readBack = readBack
		changes = append(changes, next)
	}
	if err := carryOut(ctx, ns, changes); err != nil {
		return Result{}, errors.Join(fmt.Errorf("%w: %w", ErrApply, err), undo(ctx, ns, changes))
	}
	result.Changed = len(changes) > 0
	for _, next := range changes {
		result.Holds = append(result.Holds, next.now)
	}
	if result.Changed && !readBack {
		result.Holds = nil
	}
	return result, nil
}

// Remove deletes all rules and routing of Shunt, and the tables that it made.
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
	if err := cutOffAll(ns, changes); err != nil {
		return err
	}
	for i := range changes {
		if err := changes[i].apply(ctx, ns); err != nil {
			return fmt.Errorf("%s: %w", changes[i].want.Family, err)
		}
	}
	for _, c := range changes {
		if err := ns.RemoveRouting(c.want.Family, cutOff); err != nil {
			return fmt.Errorf("%s: making it reachable again: %w", c.want.Family, err)
		}
	}
	return nil
}

// cutOffAll cuts all families that change off from outside.
func cutOffAll(ns Namespace, changes []change) error {
	for _, c := range changes {
		if err := ns.AddRouting(c.want.Family, cutOff); err != nil {
			return fmt.Errorf("%s: cutting it off: %w", c.want.Family, err)
		}
	}
	return nil
}

// read returns all rules of a namespace, and Shunt's routing.
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

// change leads from what one family holds to what is wanted of it.
type change struct {
	have, want   ruleset.RuleSet
	tx           Transaction
	add, remove  ruleset.Routing
	leavesTables bool // Shunt made tables that will be empty
	readBack     bool
	now          ruleset.RuleSet // what the namespace held when it was read back
}

func newChange(have, want ruleset.RuleSet) change {
	return change{
		have: have, want: want, tx: plan(have, want),
		add: missing(want.Routing, have.Routing), remove: missing(have.Routing, want.Routing),
		leavesTables: slices.ContainsFunc(have.Tables, func(t ruleset.Table) bool { return leftEmpty(t, tableOf(want, t.Name)) }),
	}
}

// empty reports whether there is nothing to do, not even to complete a change that
// was cut short.
func (c change) empty() bool { return c.done() && !c.have.Routing.Unreachable }

// done reports whether the rules and routing are as wanted.
func (c change) done() bool {
	return c.tx.Empty() && empty(c.add) && empty(c.remove) && !c.leavesTables
}

func empty(r ruleset.Routing) bool { return len(r.Addresses)+len(r.Rules)+len(r.Routes) == 0 }

// apply carries the change out and reads it back if readBack is set. It adds
// routing before the rules that rely on it, and removes it after them.
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
	if c.now, err = read(ctx, ns, c.want.Family); err != nil {
		return fmt.Errorf("reading the rules back: %w", err)
	}
	c.now.Routing.Unreachable = false
	if left := newChange(c.now, c.want); !left.empty() {
		return fmt.Errorf("the namespace does not hold what was written: %q", ruleset.Diff(c.want, c.now.Owned()))
	}
	return nil
}

// undo puts back what the changes found, by the same three steps, since a family
// may be reachable again already. A family that cannot be put back stays cut off.
// undo ignores the caller's cancellation: it must not leave a change half done.
func undo(ctx context.Context, ns Namespace, changes []change) error {
	ctx = context.WithoutCancel(ctx)
	if err := cutOffAll(ns, changes); err != nil {
		return fmt.Errorf("nothing was put back: %w", err)
	}
	var errs []error
	for _, c := range slices.Backward(changes) {
		now, err := read(ctx, ns, c.want.Family)
		if err == nil {
			back := newChange(now, c.have.Owned())
			back.readBack = true
			err = back.apply(ctx, ns)
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
			continue // it was cut off before
		}
		if err := ns.RemoveRouting(c.want.Family, cutOff); err != nil {
			errs = append(errs, fmt.Errorf("%s stays cut off: %w", c.want.Family, err))
		}
	}
	return errors.Join(errs...)
}

// missing returns what a has and b has not. Unreachable is left out: it is no part
// of a rule set.
func missing(a, b ruleset.Routing) ruleset.Routing {
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
