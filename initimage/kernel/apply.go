package kernel

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/shunt-dev/shunt/initimage/nft"
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
// A run may be killed after any of its effects, and what it leaves must be safe.
//
// A native table is replaced in all families by one effect. Before it come
// addresses, routes and ip rules that are missing; after it those go that are no
// longer wanted. Without our rules they concern nobody: nothing has their marks, or
// is sent from ::6 by a socket that is bound to lo. So a killed run leaves the old
// rules or the new ones. It is another matter if rules of ours are there before and
// after, and need different routing: the marks of one system mean something else in
// another.
//
// That change, one of iptables' tables, which the kernel takes one by one, and one
// of the backend, have three steps:
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
// proof of the former rules either: each change begins by deleting it, and the
// caller proves the new rules after the end.
func Apply(ctx context.Context, ns Namespace, want []ruleset.RuleSet, readBack bool) (Result, error) {
	result := Result{}
	stale, err := readFormers(ctx, ns, want)
	if err != nil {
		return Result{}, err
	}
	own := side{ns: ns}
	for _, wanted := range want {
		have, err := read(ctx, ns, wanted.Family)
		if err != nil {
			return Result{}, fmt.Errorf("%w: reading the %s rules: %w", ErrPreflight, wanted.Family, err)
		}
		next := newChange(ns, have, wanted)
		if next.empty() && len(stale) == 0 {
			result.Holds = append(result.Holds, have)
			continue
		}
		next.readBack = readBack
		own.changes = append(own.changes, next)
	}
	whole := plan{stale: stale, own: own, cuts: len(stale) > 0 || own.cuts()}
	if err := whole.carryOut(ctx); err != nil {
		return Result{}, errors.Join(fmt.Errorf("%w: %w", ErrApply, err), whole.undo(ctx))
	}
	result.Changed = len(own.changes) > 0
	for _, next := range own.changes {
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

// readFormers plans the removal of our rules from other backends.
func readFormers(ctx context.Context, ns Namespace, want []ruleset.RuleSet) ([]side, error) {
	var stale []side
	for _, former := range ns.Formers() {
		leaving := side{ns: former}
		for _, wanted := range want {
			have, err := former.Rules(ctx, wanted.Family)
			if err != nil {
				return nil, fmt.Errorf("%w: reading the %s rules of %s: %w", ErrPreflight, wanted.Family, former, err)
			}
			next := newChange(former, have, ruleset.RuleSet{Family: wanted.Family})
			if next.empty() {
				continue
			}
			next.rulesOnly, next.readBack = true, true
			leaving.changes = append(leaving.changes, next)
		}
		if len(leaving.changes) > 0 {
			stale = append(stale, leaving)
		}
	}
	return stale, nil
}

// plan is all that a run changes: first our rules go from other backends.
type plan struct {
	stale []side
	own   side
	cuts  bool // the families are cut off meanwhile
}

// side is what changes in one backend.
type side struct {
	ns      Namespace
	changes []change
}

// cuts reports whether the change takes more than one effect that packets notice.
func (s side) cuts() bool {
	return slices.ContainsFunc(s.changes, func(c change) bool {
		reroutes := len(c.have.Tables) > 0 && len(c.want.Tables) > 0 && (!empty(c.add) || !empty(c.remove))
		return !s.ns.Native() || reroutes || c.have.Routing.Unreachable
	})
}

// cutOff is the routing that keeps a family from outside.
var cutOff = ruleset.Routing{Unreachable: true}

// carryOut takes the steps of Apply.
func (p plan) carryOut(ctx context.Context) error {
	if err := p.cutOffAll(); err != nil {
		return err
	}
	for _, s := range append(slices.Clip(p.stale), p.own) {
		if err := s.apply(ctx); err != nil {
			return err
		}
	}
	for _, c := range p.own.changes {
		if !p.cuts {
			break
		}
		if err := p.own.ns.RemoveRouting(c.want.Family, cutOff); err != nil {
			return fmt.Errorf("%s: making it reachable again: %w", c.want.Family, err)
		}
	}
	return nil
}

// cutOffAll cuts all families that change off from outside, if the plan needs it.
func (p plan) cutOffAll() error {
	if !p.cuts {
		return nil
	}
	for _, c := range p.own.changes {
		if err := p.own.ns.AddRouting(c.want.Family, cutOff); err != nil {
			return fmt.Errorf("%s: cutting it off: %w", c.want.Family, err)
		}
	}
	return nil
}

// apply carries the changes of one backend out, and reads them back if that is
// wanted. It adds routing before the rules that rely on it, and removes it after
// them.
func (s side) apply(ctx context.Context) error {
	if s.ns.Native() {
		return s.replace(ctx)
	}
	for i := range s.changes {
		if err := s.changes[i].apply(ctx, s.ns); err != nil {
			return fmt.Errorf("%s: %w", s.changes[i].want.Family, err)
		}
	}
	return nil
}

// replace changes the native tables of all families at once.
func (s side) replace(ctx context.Context) error {
	var tables []ruleset.RuleSet
	for _, c := range s.changes {
		if !empty(c.add) {
			if err := s.ns.AddRouting(c.want.Family, c.add); err != nil {
				return fmt.Errorf("%s: adding the routing: %w", c.want.Family, err)
			}
		}
		if c.rules {
			tables = append(tables, c.want)
		}
	}
	if len(tables) > 0 {
		if err := s.ns.Replace(tables); err != nil {
			return fmt.Errorf("writing the rules: %w", err)
		}
	}
	for i, c := range s.changes {
		if !empty(c.remove) {
			if err := s.ns.RemoveRouting(c.want.Family, c.remove); err != nil {
				return fmt.Errorf("%s: removing the routing: %w", c.want.Family, err)
			}
		}
		if !c.readBack {
			continue
		}
		if err := s.changes[i].check(ctx, s.ns); err != nil {
			return fmt.Errorf("%s: %w", c.want.Family, err)
		}
	}
	return nil
}

// read returns all rules of a namespace, and Shunt's routing.
func read(ctx context.Context, ns Namespace, family ruleset.Family) (ruleset.RuleSet, error) {
	rs, err := ns.Rules(ctx, family)
	if err != nil {
		return ruleset.RuleSet{}, err
	}
	rs.Routing, err = ns.Routing(family)
	return rs, err
}

// owned returns Shunt's part of what a namespace holds. All of a native table is
// Shunt's: what others add to it is wrong there.
func owned(ns Namespace, have ruleset.RuleSet) ruleset.RuleSet {
	if ns.Native() {
		return have
	}
	return have.Owned()
}

// asRead returns a rule set as it is read back.
func asRead(ns Namespace, want ruleset.RuleSet) ruleset.RuleSet {
	if ns.Native() {
		return nft.Normal(want)
	}
	return want
}

// undo puts back what the plan found, by the same steps, since a family may be
// reachable again already. A family that cannot be put back stays cut off. undo
// ignores the caller's cancellation: it must not leave a change half done.
func (p plan) undo(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	if err := p.cutOffAll(); err != nil {
		return fmt.Errorf("nothing was put back: %w", err)
	}
	var errs []error
	for _, s := range slices.Backward(append(slices.Clip(p.stale), p.own)) {
		for _, err := range s.undo(ctx) {
			if p.cuts {
				err = fmt.Errorf("%w; it stays cut off", err)
			}
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for _, c := range p.own.changes {
		if !p.cuts || c.have.Routing.Unreachable {
			continue // it was cut off before
		}
		if err := p.own.ns.RemoveRouting(c.want.Family, cutOff); err != nil {
			errs = append(errs, fmt.Errorf("%s stays cut off: %w", c.want.Family, err))
		}
	}
	return errors.Join(errs...)
}

// undo puts one backend back: native tables together, others family by family.
func (s side) undo(ctx context.Context) (errs []error) {
	back := side{ns: s.ns}
	for _, c := range slices.Backward(s.changes) {
		now, err := c.read(ctx, s.ns)
		if err == nil {
			next := newChange(s.ns, now, owned(s.ns, c.have))
			next.readBack, next.rulesOnly = true, c.rulesOnly
			if s.ns.Native() {
				back.changes = append(back.changes, next)
				continue
			}
			err = next.apply(ctx, s.ns)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s could not be put back: %w", c.want.Family, err))
		}
	}
	if err := back.apply(ctx); len(back.changes) > 0 && err != nil {
		errs = append(errs, fmt.Errorf("the rules could not be put back: %w", err))
	}
	return errs
}
