package kernel

import (
	"context"
	"fmt"
	"slices"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Inspected is a Namespace with what Verify looks at beyond it.
type Inspected interface {
	Namespace
	// SaveOther returns the rules of a family that are in the backend that is
	// not used, as iptables-save prints them. The kernel obeys both.
	SaveOther(ctx context.Context, family ruleset.Family) (string, error)
	// Addresses returns the namespace's own addresses, those of lo excepted.
	Addresses() (ruleset.Host, error)
}

// Verify compares a namespace with the wanted rule sets and returns what is
// not as it should be, a sentence each: rules, jumps, routing or addresses that
// are missing, changed or in another place; rules of others that take packets
// before ours do; a change that was cut short. It changes nothing.
func Verify(ctx context.Context, ns Inspected, want, holds []ruleset.RuleSet) ([]string, error) {
	host, err := ns.Addresses()
	if err != nil {
		return nil, fmt.Errorf("%w: listing the addresses: %w", ErrPreflight, err)
	}
	var findings []string
	for _, rs := range want {
		have, err := held(ctx, ns, rs.Family, holds)
		if err != nil {
			return nil, fmt.Errorf("%w: reading the %s rules: %w", ErrPreflight, rs.Family, err)
		}
		text, err := ns.SaveOther(ctx, rs.Family)
		if err != nil {
			return nil, fmt.Errorf("%w: reading the %s rules of the other backend: %w", ErrPreflight, rs.Family, err)
		}
		other, err := ruleset.Parse(rs.Family, text)
		if err != nil {
			return nil, fmt.Errorf("%w: parsing the %s rules of the other backend: %w", ErrPreflight, rs.Family, err)
		}
		for _, f := range compare(rs, have, other, host) {
			findings = append(findings, rs.Family.String()+": "+f)
		}
	}
	return findings, nil
}

// held returns what a family holds, as it has been read before or is now.
func held(ctx context.Context, ns Namespace, family ruleset.Family, holds []ruleset.RuleSet) (ruleset.RuleSet, error) {
	for _, rs := range holds {
		if rs.Family == family {
			return rs, nil
		}
	}
	return read(ctx, ns, family)
}

// compare returns what is wrong with what a family holds.
func compare(want, have, other ruleset.RuleSet, host ruleset.Host) []string {
	var findings []string
	if have.Routing.Unreachable {
		findings = append(findings, "cut off from outside: a change was cut short; run shunt-init again")
	}
	own := have.Owned()
	own.Routing.Unreachable = false
	for _, line := range ruleset.Diff(want, own) {
		findings = append(findings, "differs from what is wanted (- missing, + not wanted): "+line)
	}
	findings = append(findings, before(want, have)...)
	if hasForeign(have, own) {
		findings = append(findings, interference(want, have, host)...)
	}
	if hasForeign(other, other.Owned()) || len(other.Owned().Tables) > 0 {
		other.Routing = want.Routing
		findings = append(findings, intrusion(want, other, host)...)
	}
	return findings
}

// before returns the rules of others that stand before ours in a built-in
// chain, whatever they do.
func before(want, have ruleset.RuleSet) []string {
	var findings []string
	for _, t := range want.Tables {
		for _, c := range t.Chains {
			found := have.Chain(t.Name, c.Name)
			if !c.Builtin() || found == nil {
				continue
			}
			last := lastOwned(found.Rules)
			for _, r := range found.Rules[:last+1] {
				if !r.Owned() {
					findings = append(findings, fmt.Sprintf("a rule of others comes before ours: %s %s %s", t.Name, c.Name, r))
				}
			}
		}
	}
	return findings
}

func lastOwned(rules []ruleset.Rule) int {
	for i, r := range slices.Backward(rules) {
		if r.Owned() {
			return i
		}
	}
	return -1
}

// hasForeign reports whether a rule set holds rules that are not ours.
func hasForeign(have, own ruleset.RuleSet) bool { return countRules(have) > countRules(own) }

func countRules(rs ruleset.RuleSet) int {
	n := 0
	for _, t := range rs.Tables {
		for _, c := range t.Chains {
			n += len(c.Rules)
		}
	}
	return n
}

// interference walks packets through all rules and through ours alone, and
// returns those that others' rules take another way. A packet that they drop
// has not got past the proxy.
func interference(want, have ruleset.RuleSet, host ruleset.Host) []string {
	have.Routing = want.Routing
	var findings []string
	for _, p := range ruleset.Distinguished(want, host) {
		wanted, got := ruleset.Trace(want, host, p), ruleset.Trace(have, host, p)
		blocked := got.Outcome.Fate == ruleset.Dropped || got.Outcome.Fate == ruleset.Rejected
		if got.Outcome != wanted.Outcome && !blocked {
			return append(findings, fmt.Sprintf("rules of others change the way of a packet (%s): %s, wanted %s",
				p, got.Outcome, wanted.Outcome))
		}
	}
	return findings
}

// intrusion returns a packet that the rules of the other backend take somewhere.
func intrusion(want, other ruleset.RuleSet, host ruleset.Host) []string {
	for _, p := range ruleset.Distinguished(want, host) {
		got := ruleset.Trace(other, host, p).Outcome
		if got.Fate == ruleset.Redirected || got.Fate == ruleset.TProxied || got.Fate == ruleset.Unknown {
			return []string{fmt.Sprintf("the other backend has rules that take a packet (%s): %s", p, got)}
		}
	}
	return nil
}
