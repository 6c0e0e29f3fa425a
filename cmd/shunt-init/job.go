//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// job is what is to be done in one namespace.
type job struct {
	host   *kernel.Host
	spec   interception.Spec
	want   []ruleset.RuleSet
	stdout io.Writer
}

// apply brings the namespace to the wanted rules, and proves it.
func (j job) apply(ctx context.Context, verify bool) error {
	if err := j.host.Require(j.want); err != nil {
		return err
	}
	result, err := kernel.Apply(ctx, j.host, j.want, verify)
	if err != nil {
		return err
	}
	did := "nothing to change"
	if result.Changed {
		did = "applied"
	}
	if verify {
		proof, err := j.check(ctx, result.Holds, result.Changed)
		if err != nil {
			return err
		}
		did += ", " + proof
	}
	return j.say(string(j.spec.System), did)
}

// verify proves that the namespace holds the wanted rules.
func (j job) verify(ctx context.Context) error {
	proof, err := j.check(ctx, nil, true)
	if err != nil {
		return err
	}
	return j.say(string(j.spec.System), proof)
}

// remove takes everything of Shunt's away.
func (j job) remove(ctx context.Context) error {
	result, err := kernel.Remove(ctx, j.host, j.host.Families())
	if err != nil {
		return err
	}
	if result.Changed {
		return j.say("Shunt's rules", "removed")
	}
	return j.say("Shunt's rules", "nothing to remove")
}

// check compares the namespace with the wanted rules and, where they are
// there, sends probes through them. What it holds need not be read again, and
// rules that an earlier run put in and probed are not probed again. It says
// what has been proved.
func (j job) check(ctx context.Context, holds []ruleset.RuleSet, probe bool) (proof string, err error) {
	findings, err := kernel.Verify(ctx, j.host, j.want, holds)
	proof = "verified"
	if err == nil && len(findings) == 0 && probe {
		var probed []ruleset.Family
		findings, probed, err = j.host.Probe(ctx, j.spec, j.want)
		for _, rs := range j.want {
			if !slices.Contains(probed, rs.Family) {
				proof += ", but " + rs.Family.String() + " could not be probed here"
			}
		}
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", kernel.ErrVerify, err)
	}
	var errs []error
	for _, f := range findings {
		errs = append(errs, fmt.Errorf("%w: %s", kernel.ErrVerify, f))
	}
	return proof, errors.Join(errs...)
}

func (j job) say(what, did string) error {
	var families []string
	for _, rs := range j.want {
		families = append(families, rs.Family.String())
	}
	_, err := fmt.Fprintf(j.stdout, "shunt-init: %s over %s, %s: %s\n", what, j.host, strings.Join(families, " and "), did)
	return err
}
