//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"

	"github.com/shunt-dev/shunt/initimage/kernel"
	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/prove"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// prove returns an error for what is not proved of every connection, once the wanted
// rules have taken the place of Shunt's in this namespace. It changes nothing. Which
// of two parties' rules come first where their priorities are equal cannot be seen,
// so it tries both.
func (j job) prove(ctx context.Context) error {
	debug.SetGCPercent(gcPercent) // main has disabled it, and long lists make many classes
	host, err := j.host.Addresses()
	if err != nil {
		return fmt.Errorf("%w: listing the addresses: %w", kernel.ErrPreflight, err)
	}
	pod := trace.Pod{Name: "this namespace", Proxy: trace.ProxyOf(j.spec)}
	reversed, others := pod, false
	for _, want := range j.want {
		sets, err := j.prospect(ctx, want)
		if err != nil {
			return err
		}
		side := trace.Side{Family: want.Family, Host: host, Sets: sets, Routing: want.Routing}
		pod.Sides = append(pod.Sides, side)
		side.Sets = slices.Clone(sets)
		slices.Reverse(side.Sets)
		reversed.Sides, others = append(reversed.Sides, side), others || len(sets) > 1
	}
	if err := unproved(prove.Prove(pod)); err != nil || !others {
		return err
	}
	return unproved(prove.Prove(reversed))
}

// prospect returns all rules that a family will have.
func (j job) prospect(ctx context.Context, want ruleset.RuleSet) ([]ruleset.RuleSet, error) {
	have, err := kernel.Read(ctx, j.host, []ruleset.Family{want.Family})
	if err != nil {
		return nil, err
	}
	others, err := j.host.Others(ctx, want.Family)
	if err != nil {
		return nil, fmt.Errorf("%w: reading the %s rules of others: %w", kernel.ErrPreflight, want.Family, err)
	}
	ours := want.Before(have[0].Foreign())
	if j.host.Native() { // a table of its own
		ours = nft.Normal(want)
	}
	sets := []ruleset.RuleSet{ours}
	for _, other := range others {
		sets = append(sets, other.Foreign())
	}
	return sets, nil
}

// unproved returns an error for each statement that is not proved.
func unproved(result prove.Result) error {
	var errs []error
	for _, s := range result.Statements {
		if s.Verdict != prove.Proved {
			errs = append(errs, fmt.Errorf("%w: %s", kernel.ErrPreflight, s.Summary()))
		}
	}
	return errors.Join(errs...)
}
