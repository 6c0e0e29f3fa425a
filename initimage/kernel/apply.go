package kernel

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Result says what Apply did.
type Result struct {
	Changed bool // false where the namespace was right already
}

// Apply brings a namespace to the wanted rule sets, at most one of a family,
// and reads them back. Both families are read and planned before either is
// written. Where a change fails, or the namespace does not hold what was
// written, what was there before is put back and the error is an ErrApply.
func Apply(ctx context.Context, ns Namespace, want []ruleset.RuleSet) (Result, error) {
	var changes []change
	for _, rs := range want {
		have, err := read(ctx, ns, rs.Family)
		if err != nil {
			return Result{}, fmt.Errorf("%w: reading the %s rules: %w", ErrPreflight, rs.Family, err)
		}
		if c := newChange(have, rs); !c.empty() {
			changes = append(changes, c)
		}
	}
	for i, c := range changes {
		err := c.run(ctx, ns)
		if err == nil {
			continue
		}
		err = fmt.Errorf("%w: %s: %w", ErrApply, c.want.Family, err)
		return Result{}, errors.Join(err, undo(ctx, ns, changes[:i+1]))
	}
	return Result{Changed: len(changes) > 0}, nil
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
}

func newChange(have, want ruleset.RuleSet) change {
	return change{
		have: have, want: want, tx: plan(have, want),
		add: lacking(want.Routing, have.Routing), remove: lacking(have.Routing, want.Routing),
	}
}

func (c change) empty() bool {
	return c.tx.Empty() && empty(c.add) && empty(c.remove)
}

func empty(r ruleset.Routing) bool { return len(r.Addresses)+len(r.Rules)+len(r.Routes) == 0 }

// run carries the change out and reads it back. Routing that the rules rely on
// is there before them and goes after them.
func (c change) run(ctx context.Context, ns Namespace) error {
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
	return c.check(ctx, ns)
}

// check compares what the namespace holds now with what was wanted.
func (c change) check(ctx context.Context, ns Namespace) error {
	now, err := read(ctx, ns, c.want.Family)
	if err != nil {
		return fmt.Errorf("reading the rules back: %w", err)
	}
	if left := newChange(now, c.want); !left.empty() {
		return fmt.Errorf("the namespace does not hold what was written: %q", ruleset.Diff(c.want, now.Owned()))
	}
	return nil
}

// undo puts back what the changes found, the last one first. Its context is
// its own: what is half done is undone also when the caller gives up.
func undo(ctx context.Context, ns Namespace, changes []change) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	for _, c := range slices.Backward(changes) {
		now, err := read(ctx, ns, c.want.Family)
		if err == nil {
			err = newChange(now, c.have.Owned()).run(ctx, ns)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s could not be put back: %w", c.want.Family, err))
		}
	}
	return errors.Join(errs...)
}

// lacking returns what of a is not in b.
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
