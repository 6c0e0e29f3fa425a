//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// job is a run in one namespace.
type job struct {
	host   *kernel.Host
	spec   interception.Spec
	want   []ruleset.RuleSet
	stdout io.Writer
}

// apply installs the wanted rules and verifies them. It sends probes unless an
// earlier run sent its probes through the very same rules.
func (j job) apply(ctx context.Context, verify bool) error {
	if err := errors.Join(j.host.Require(j.spec, j.want), j.host.RequireSettings(j.spec)); err != nil {
		return err
	}
	result, err := kernel.Apply(ctx, j.host, j.want, verify)
	if err != nil {
		return err
	}
	outcome := "nothing to change"
	if result.Changed {
		outcome = "applied"
	}
	if !verify {
		return j.reportRules(outcome)
	}
	if err := j.compare(ctx, result.Holds); err != nil {
		return err
	}
	proved, err := j.host.Proved(ctx, result.Holds)
	if err != nil {
		return fmt.Errorf("%w: %w", kernel.ErrVerify, err)
	}
	if proved {
		return j.reportRules(outcome + ", read back; proved by an earlier run")
	}
	proof, err := j.probe(ctx, result.Holds)
	if err != nil {
		return err
	}
	return j.reportRules(outcome + ", " + proof)
}

// verify checks that the namespace holds the wanted rules and that they work.
func (j job) verify(ctx context.Context) error {
	holds, err := kernel.Read(ctx, j.host, j.host.Families())
	if err != nil {
		return fmt.Errorf("%w: %w", kernel.ErrVerify, err)
	}
	if err := j.compare(ctx, holds); err != nil {
		return err
	}
	proof, err := j.probe(ctx, holds)
	if err != nil {
		return err
	}
	return j.reportRules(proof)
}

// remove deletes all rules and routing of Shunt.
func (j job) remove(ctx context.Context) error {
	result, err := kernel.Remove(ctx, j.host, j.host.Families())
	if err != nil {
		return err
	}
	for _, family := range j.host.Families() { // of rules that somebody else has deleted
		forgotten, err := j.host.ForgetProof(family)
		if err != nil {
			return fmt.Errorf("%w: %w", kernel.ErrApply, err)
		}
		result.Changed = result.Changed || forgotten
	}
	if result.Changed {
		return j.report("Shunt's rules", "removed")
	}
	return j.report("Shunt's rules", "nothing to remove")
}

// compare returns an error if the namespace does not hold what is wanted. It prints
// which rules of others block connections.
func (j job) compare(ctx context.Context, holds []ruleset.RuleSet) error {
	found, err := kernel.Verify(ctx, j.host, j.want, holds)
	for _, warning := range found.Warnings {
		_, printing := fmt.Fprintf(j.stdout, "shunt-init: warning: %s\n", warning)
		err = errors.Join(err, printing)
	}
	return verifyError(found.Findings, err)
}

// probe sends probes and returns what they have proved.
func (j job) probe(ctx context.Context, holds []ruleset.RuleSet) (proof string, err error) {
	unproved, err := j.host.Prove(ctx, j.spec, j.want, holds, verifyError)
	if err != nil {
		return "", err
	}
	proof = "verified"
	if len(unproved) > 0 {
		proof += ", but " + strings.Join(unproved, ", and ")
	}
	return proof, nil
}

// verifyError returns the error of a verification; nil if there is nothing to
// report.
func verifyError(findings []string, err error) error {
	if err != nil {
		return fmt.Errorf("%w: %w", kernel.ErrVerify, err)
	}
	var errs []error
	for _, f := range findings {
		errs = append(errs, fmt.Errorf("%w: %s", kernel.ErrVerify, f))
	}
	return errors.Join(errs...)
}

// reportRules also reports what the rules do not intercept.
func (j job) reportRules(outcome string) error {
	return j.report(string(j.spec.System), outcome+"; not intercepted: "+ruleset.Exceptions(j.spec))
}

func (j job) report(what, outcome string) error {
	var families []string
	for _, rs := range j.want {
		families = append(families, rs.Family.String())
	}
	_, err := fmt.Fprintf(j.stdout, "shunt-init: %s over %s, %s: %s\n", what, j.host, strings.Join(families, " and "), outcome)
	return err
}
