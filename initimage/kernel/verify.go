package kernel

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// VerifiableNamespace is a Namespace with the further methods that Verify needs.
type VerifiableNamespace interface {
	Namespace
	// Others returns the rules of a family that Rules does not return and that the
	// kernel applies all the same: those of other backends, and those of native
	// tables of others.
	Others(ctx context.Context, family ruleset.Family) ([]ruleset.RuleSet, error)
	// Addresses returns the namespace's own addresses, without those of lo, and the
	// interfaces that have them.
	Addresses() (ruleset.Host, error)
}

// Verdict is the result of Verify, each finding and warning a sentence.
type Verdict struct {
	Findings []string // connections may bypass the proxy, or are not as wanted
	Warnings []string // rules of others block connections, which then go nowhere
	Causes   []Cause  // what the findings are about, each once
}

// Verify compares a namespace with the wanted rule sets. It reports rules, jumps,
// routing or addresses that are missing, changed or in another place; rules of
// others that take packets another way than ours; and a change that was cut short.
// It changes nothing.
func Verify(ctx context.Context, ns VerifiableNamespace, want, holds []ruleset.RuleSet) (Verdict, error) {
	var verdict Verdict
	host, err := ns.Addresses()
	if err != nil {
		return verdict, fmt.Errorf("%w: listing the addresses: %w", ErrPreflight, err)
	}
	for _, wanted := range want {
		have, err := heldOrRead(ctx, ns, wanted.Family, holds)
		if err != nil {
			return verdict, fmt.Errorf("%w: reading the %s rules: %w", ErrPreflight, wanted.Family, err)
		}
		others, err := ns.Others(ctx, wanted.Family)
		if err != nil {
			return verdict, fmt.Errorf("%w: reading the %s rules of others: %w", ErrPreflight, wanted.Family, err)
		}
		found := compare(asRead(ns, wanted), have, owned(ns, have), others, host)
		if err := found.addStale(ctx, ns, wanted.Family); err != nil {
			return verdict, err
		}
		verdict.Causes = append(verdict.Causes, found.Causes...)
		for _, f := range found.Findings {
			verdict.Findings = append(verdict.Findings, wanted.Family.String()+": "+f)
		}
		for _, w := range found.Warnings {
			verdict.Warnings = append(verdict.Warnings, wanted.Family.String()+": "+w)
		}
	}
	slices.Sort(verdict.Causes)
	verdict.Causes = slices.Compact(verdict.Causes)
	return verdict, nil
}

// Read returns everything that the families hold. Its errors are ErrPreflight.
func Read(ctx context.Context, ns Namespace, families []ruleset.Family) ([]ruleset.RuleSet, error) {
	var holds []ruleset.RuleSet
	for _, family := range families {
		rs, err := read(ctx, ns, family)
		if err != nil {
			return nil, fmt.Errorf("%w: reading the %s rules: %w", ErrPreflight, family, err)
		}
		holds = append(holds, rs)
	}
	return holds, nil
}

// heldOrRead returns what a family holds: as it was read before, or else as it is
// now.
func heldOrRead(ctx context.Context, ns Namespace, family ruleset.Family, holds []ruleset.RuleSet) (ruleset.RuleSet, error) {
	for _, rs := range holds {
		if rs.Family == family {
			return rs, nil
		}
	}
	return read(ctx, ns, family)
}

// add adds a finding about a cause.
func (v *Verdict) add(cause Cause, finding string) {
	v.Findings, v.Causes = append(v.Findings, finding), append(v.Causes, cause)
}

// addStale adds a finding for each other backend that holds rules of Shunt.
func (v *Verdict) addStale(ctx context.Context, ns Namespace, family ruleset.Family) error {
	for _, former := range ns.Formers() {
		rs, err := former.Rules(ctx, family)
		if err != nil {
			return fmt.Errorf("%w: reading the %s rules of %s: %w", ErrPreflight, family, former, err)
		}
		if !owned(former, rs).Empty() {
			v.add(CauseElsewhere, fmt.Sprintf("rules of Shunt are in %s, too: run shunt-init again", former))
		}
	}
	return nil
}

// compare returns what is wrong with what a family holds, of which own is Shunt's.
func compare(want, have, own ruleset.RuleSet, others []ruleset.RuleSet, host ruleset.Host) Verdict {
	var verdict Verdict
	if have.Routing.Unreachable {
		verdict.add(CauseUnfinished, "cut off from outside: a change was cut short; run shunt-init again")
	}
	own.Routing.Unreachable = false
	verdict.Causes = append(verdict.Causes, causesOf(want, own)...)
	for _, line := range ruleset.Diff(want, own) {
		verdict.Findings = append(verdict.Findings, "differs from what is wanted (- missing, + not wanted): "+line)
	}
	if hasForeign(have, own) || len(others) > 0 {
		found := interference(want, have, others, host)
		verdict.Findings, verdict.Warnings = append(verdict.Findings, found.Findings...), append(verdict.Warnings, found.Warnings...)
		if len(found.Findings) > 0 {
			verdict.Causes = append(verdict.Causes, CauseForeign)
		}
	}
	return verdict
}

// hasForeign reports whether a rule set holds rules of others, or a policy that
// drops.
func hasForeign(have, own ruleset.RuleSet) bool {
	return countRules(have) > countRules(own) || slices.ContainsFunc(have.Tables, func(t ruleset.Table) bool {
		return slices.ContainsFunc(t.Chains, func(c ruleset.Chain) bool { return c.Policy == string(ruleset.Drop) })
	})
}

func countRules(rs ruleset.RuleSet) int {
	n := 0
	for _, t := range rs.Tables {
		for _, c := range t.Chains {
			n += len(c.Rules)
		}
	}
	return n
}

// interference walks packets through all rules and through the wanted ones alone,
// and reports where rules of others make a difference.
func interference(want, have ruleset.RuleSet, others []ruleset.RuleSet, host ruleset.Host) Verdict {
	ours := []ruleset.RuleSet{have}
	walks := comparison{ports: want.ProxyPorts(), wanted: ruleset.NewStack(want.Routing, want)}
	walks.held = []*ruleset.Stack{ruleset.NewStack(want.Routing, slices.Concat(ours, others)...)}
	if len(others) > 0 {
		walks.held = append(walks.held, ruleset.NewStack(want.Routing, slices.Concat(others, ours)...))
	}
	for _, rs := range slices.Concat(ours, others) {
		walks.opaque = walks.opaque || rs.Opaque()
	}
	whole := true
	for t := range ruleset.Trials(want, slices.Concat(ours, others), host) {
		if walks.rulesMet > maxRulesMet {
			whole = false
			break
		}
		walks.walk(t)
	}
	// A rule that diverts packets is not reported again as one that blocks them.
	walks.warnings = slices.DeleteFunc(walks.warnings, func(w remark) bool {
		return slices.ContainsFunc(walks.findings, func(f remark) bool { return strings.HasSuffix(f.culprit, w.culprit) })
	})
	verdict := Verdict{Findings: sentences(walks.findings), Warnings: sentences(walks.warnings)}
	if !whole {
		verdict.Warnings = append(verdict.Warnings, "there are too many rules of others to try them all")
	}
	return verdict
}

// comparison compares the paths that packets should take with those that they take.
type comparison struct {
	wanted             *ruleset.Stack
	held               []*ruleset.Stack // in both orders where priorities are equal
	opaque             bool             // some matches are not understood
	ports              map[uint16]bool  // of the proxy
	rulesMet           int              // rules that packets were compared with
	findings, warnings []remark
}

// maxRulesMet bounds the time that rules of others can take, to some seconds.
const maxRulesMet = 1 << 28

// walk walks a packet and, if it goes where it should, its answer. A match that is
// not understood is tried both ways.
func (c *comparison) walk(t ruleset.Trial) {
	should := t.Walk(c.wanted)
	answer := t.Answer(should).Walk(c.wanted)
	if t.Unsent(should, answer) {
		return
	}
	answered := !blocked(should.Outcome) &&
		(t.Packet.Direction == ruleset.In || t.Packet.State == ruleset.New) // else it is an answer itself
	assumptions := []ruleset.Assumption{t.Assumed}
	if c.opaque {
		assumptions = append(assumptions, ruleset.EveryRule)
	}
	for _, stack := range c.held {
		for _, t.Assumed = range assumptions {
			does := t.Walk(stack)
			c.rulesMet += should.RulesMet + does.RulesMet
			if should.Zone != 0 && should.Zone != does.Zone {
				c.addFinding(culprits(t.Explain(stack)),
					fmt.Sprintf("rules of others make conntrack take a packet of the proxy for one of the app (%s)", t.Packet))
			}
			blame := func() []ruleset.Step { return culprits(t.Explain(stack)) }
			if !c.compareOutcomes(t, "", should.Outcome, does.Outcome, blame) || !answered {
				continue
			}
			c.walkAnswer(t, stack, should, answer, does)
		}
	}
}

// walkAnswer walks the answer to a packet that went where it should.
func (c *comparison) walkAnswer(t ruleset.Trial, stack *ruleset.Stack, should, answer, does ruleset.Path) {
	back := t.Answer(should)
	back.Packet.ConnMark = does.Answer.ConnMark
	if does.Untracked {
		if t.Packet.State != ruleset.New || t.Packet.Protocol != "tcp" {
			return // the first packet of its connection decides
		}
		back.Packet.State, back.Packet.Midstream = does.Answer.State, does.Answer.Midstream
	}
	walked := back.Walk(stack)
	c.rulesMet += answer.RulesMet + walked.RulesMet
	lost := walked.Untracked && !answer.Untracked || walked.Zone != does.Zone && answer.Zone == should.Zone
	if should.Outcome.Fate == ruleset.Redirected && lost {
		walked.Outcome = ruleset.Outcome{Fate: ruleset.Dropped} // nat does not restore its addresses
	}
	c.compareOutcomes(back, "the answer to ", answer.Outcome, walked.Outcome, func() []ruleset.Step {
		return culprits(t.Explain(stack), back.Explain(stack))
	})
}

// culprits returns the rules of others on some paths that can have changed them.
func culprits(ways ...ruleset.Path) []ruleset.Step {
	var found []ruleset.Step
	for _, p := range ways {
		for _, s := range p.Steps {
			if s.Foreign && s.Acts() {
				found = append(found, s)
			}
		}
	}
	return found
}

// blocked reports whether a packet gets nowhere.
func blocked(o ruleset.Outcome) bool { return o.Fate == ruleset.Dropped || o.Fate == ruleset.Rejected }

// compareOutcomes compares two outcomes of a packet, and reports whether they are
// equal.
//
//	it should go             | it goes                     | result
//	to the proxy             | elsewhere                   | finding
//	nowhere                  | where it was sent to        | finding
//	nowhere, or unchanged    | to the proxy                | finding
//	nowhere, or unchanged    | where others send it        | allowed
//	to TPROXY's socket       | nowhere, and nobody says so | finding
//	anywhere                 | nowhere                     | warning
//
// Others may also decide where the pod's connections to its own loopback go. They
// may not divert the proxy's connection to the app: it is the end of an intercepted
// connection.
func (c *comparison) compareOutcomes(t ruleset.Trial, what string, wanted, got ruleset.Outcome, culprits func() []ruleset.Step) bool {
	if wanted == got {
		return true
	}
	found := culprits()
	switch {
	case len(found) == 0, blocked(wanted) && blocked(got):
		// Without a rule of others on the path, the difference is in ours, and was
		// found before.
	case wanted.Fate == ruleset.TProxied && blocked(got) && !found[len(found)-1].Blocks():
		c.addFinding(found, fmt.Sprintf("rules of others stop %s%s that the proxy has: %s, wanted %s", what, describe(t), got, wanted))
	case blocked(got):
		if t.Packet.State != ruleset.Invalid && t.Packet.State != ruleset.Untracked {
			last := found[len(found)-1].String()
			c.addRemark(&c.warnings, last,
				fmt.Sprintf("rules of others block connections, such as %s%s: %s, by %s", what, describe(t), got, last))
		}
	case c.intercepted(got) || !allowedToOthers(t, wanted, got):
		c.addFinding(found, fmt.Sprintf("rules of others divert %s%s: %s, wanted %s", what, describe(t), got, wanted))
	}
	return false
}

// intercepted reports whether a packet gets to the proxy, or to a socket that is
// not its destination's.
func (c *comparison) intercepted(got ruleset.Outcome) bool {
	return got.Fate == ruleset.Local || got.Fate == ruleset.TProxied || c.ports[got.Port]
}

// allowedToOthers reports whether others may send a packet where it goes.
func allowedToOthers(t ruleset.Trial, wanted, got ruleset.Outcome) bool {
	switch {
	case t.Packet.Direction == ruleset.Out && t.Packet.Dst.IsLoopback():
		return true
	case blocked(wanted):
		return got.Fate == ruleset.Rewritten || got.Fate == ruleset.Redirected
	}
	return wanted.Fate == ruleset.Direct && !t.Hop()
}

// addFinding adds a finding about the last of some rules.
func (c *comparison) addFinding(culprits []ruleset.Step, sentence string) {
	var names []string
	for _, step := range culprits[max(0, len(culprits)-maxCulprits):] {
		names = append(names, step.String())
	}
	culprit := strings.Join(names, "; ")
	c.addRemark(&c.findings, culprit, sentence+"; by "+culprit)
}

// Bounds of the report.
const (
	maxCulprits = 3  // rules that one finding names
	maxRemarks  = 10 // findings, and warnings, about rules of others
)

// remark is a sentence about rules of others.
type remark struct{ culprit, sentence string }

// addRemark adds a sentence about a rule, unless there is one about it.
func (c *comparison) addRemark(to *[]remark, culprit, sentence string) {
	if !slices.ContainsFunc(*to, func(r remark) bool { return r.culprit == culprit }) {
		*to = append(*to, remark{culprit, sentence})
	}
}

// sentences returns the first of the remarks as text.
func sentences(remarks []remark) []string {
	var all []string
	for i, r := range remarks {
		if i == maxRemarks {
			return append(all, fmt.Sprintf("rules of others: %d more of this kind", len(remarks)-i))
		}
		all = append(all, r.sentence)
	}
	return all
}

func describe(t ruleset.Trial) string {
	if t.Packet.Direction == ruleset.Out {
		return fmt.Sprintf("a packet (%s, by %s)", t.Packet, t.Uplink)
	}
	return fmt.Sprintf("a packet (%s)", t.Packet)
}
