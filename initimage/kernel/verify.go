package kernel

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Inspected is a Namespace with what Verify looks at beyond it.
type Inspected interface {
	Namespace
	// Others returns the rules of a family that Save does not print, and that
	// the kernel obeys all the same: those of the backend that is not used, and
	// of nf_tables those that iptables does not know.
	Others(ctx context.Context, family ruleset.Family) ([]ruleset.RuleSet, error)
	// Addresses returns the namespace's own addresses, those of lo excepted, and
	// the interfaces that have them.
	Addresses() (ruleset.Host, error)
}

// Verdict is what Verify makes of a namespace, a sentence each.
type Verdict struct {
	Findings []string // connections may go past the proxy, or are not as wanted
	Warnings []string // rules of others block connections, which then go nowhere
}

// Verify compares a namespace with the wanted rule sets: rules, jumps, routing
// or addresses that are missing, changed or in another place; rules of others
// that take packets another way than ours; a change that was cut short. It
// changes nothing.
func Verify(ctx context.Context, ns Inspected, want, holds []ruleset.RuleSet) (Verdict, error) {
	var all Verdict
	host, err := ns.Addresses()
	if err != nil {
		return all, fmt.Errorf("%w: listing the addresses: %w", ErrPreflight, err)
	}
	for _, rs := range want {
		have, err := held(ctx, ns, rs.Family, holds)
		if err != nil {
			return all, fmt.Errorf("%w: reading the %s rules: %w", ErrPreflight, rs.Family, err)
		}
		others, err := ns.Others(ctx, rs.Family)
		if err != nil {
			return all, fmt.Errorf("%w: reading the %s rules of others: %w", ErrPreflight, rs.Family, err)
		}
		found := compare(rs, have, others, host)
		for _, f := range found.Findings {
			all.Findings = append(all.Findings, rs.Family.String()+": "+f)
		}
		for _, w := range found.Warnings {
			all.Warnings = append(all.Warnings, rs.Family.String()+": "+w)
		}
	}
	return all, nil
}

// Read returns all that families hold. Its errors are ErrPreflight.
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
func compare(want, have ruleset.RuleSet, others []ruleset.RuleSet, host ruleset.Host) Verdict {
	var v Verdict
	if have.Routing.Unreachable {
		v.Findings = append(v.Findings, "cut off from outside: a change was cut short; run shunt-init again")
	}
	own := have.Owned()
	own.Routing.Unreachable = false
	for _, line := range ruleset.Diff(want, own) {
		v.Findings = append(v.Findings, "differs from what is wanted (- missing, + not wanted): "+line)
	}
	if hasForeign(have, own) || len(others) > 0 {
		found := interference(want, have, others, host)
		v.Findings, v.Warnings = append(v.Findings, found.Findings...), append(v.Warnings, found.Warnings...)
	}
	return v
}

// hasForeign reports whether a rule set holds rules that are not ours, or a
// policy that is.
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

// interference walks packets through all rules and through the wanted ones
// alone, and tells what rules of others do to their ways.
func interference(want, have ruleset.RuleSet, others []ruleset.RuleSet, host ruleset.Host) Verdict {
	mine := []ruleset.RuleSet{have}
	c := comparison{ports: want.ProxyPorts(), wanted: ruleset.NewStack(want.Routing, want)}
	c.held = []*ruleset.Stack{ruleset.NewStack(want.Routing, slices.Concat(mine, others)...)}
	if len(others) > 0 {
		c.held = append(c.held, ruleset.NewStack(want.Routing, slices.Concat(others, mine)...))
	}
	for _, rs := range slices.Concat(mine, others) {
		c.opaque = c.opaque || rs.Opaque()
	}
	whole := true
	for t := range ruleset.Trials(want, slices.Concat(mine, others), host) {
		if c.met > maxMet {
			whole = false
			break
		}
		c.try(t)
	}
	// A rule that takes packets elsewhere need not be said to block others.
	c.warnings = slices.DeleteFunc(c.warnings, func(w remark) bool {
		return slices.ContainsFunc(c.findings, func(f remark) bool { return strings.HasSuffix(f.culprit, w.culprit) })
	})
	v := Verdict{Findings: sentences(c.findings), Warnings: sentences(c.warnings)}
	if !whole {
		v.Warnings = append(v.Warnings, "there are too many rules of others to try them all")
	}
	return v
}

// comparison is of the ways that packets are to go and those that they go.
type comparison struct {
	wanted             *ruleset.Stack
	held               []*ruleset.Stack // in either order of those that have the same priority
	opaque             bool             // they have matches that are not understood
	ports              map[uint16]bool  // of the proxy
	met                int              // rules that packets have been held against
	findings, warnings []remark
}

// maxMet bounds the time that rules of others can take: some seconds.
const maxMet = 1 << 28

// try walks a packet and, where it goes the way that it should, its answer.
// What is not understood is taken both ways.
func (c *comparison) try(t ruleset.Trial) {
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
			c.met += should.Met + does.Met
			if should.Zone != 0 && should.Zone != does.Zone {
				c.find(culprits(t.Explain(stack)),
					fmt.Sprintf("rules of others have conntrack take a packet of the proxy's for one of the app's (%s)", t.Packet))
			}
			if !c.judge(t, "", should.Outcome, does.Outcome, func() []string { return culprits(t.Explain(stack)) }) || !answered {
				continue
			}
			c.tryAnswer(t, stack, should, answer, does)
		}
	}
}

// tryAnswer walks the answer to a packet that went as it should.
func (c *comparison) tryAnswer(t ruleset.Trial, stack *ruleset.Stack, should, answer, does ruleset.Path) {
	back := t.Answer(should)
	back.Packet.ConnMark = does.Answer.ConnMark
	if does.Untracked {
		if t.Packet.State != ruleset.New || t.Packet.Protocol != "tcp" {
			return // whose it is, its connection's first packet says
		}
		back.Packet.State, back.Packet.Midstream = does.Answer.State, does.Answer.Midstream
	}
	walked := back.Walk(stack)
	c.met += answer.Met + walked.Met
	lost := walked.Untracked && !answer.Untracked || walked.Zone != does.Zone && answer.Zone == should.Zone
	if should.Outcome.Fate == ruleset.Redirected && lost {
		walked.Outcome = ruleset.Outcome{Fate: ruleset.Dropped} // nat does not put its addresses back
	}
	c.judge(back, "the answer to ", answer.Outcome, walked.Outcome, func() []string {
		return culprits(t.Explain(stack), back.Explain(stack))
	})
}

// culprits are the rules of others on a packet's ways that can have changed them.
func culprits(ways ...ruleset.Path) []string {
	var by []string
	for _, p := range ways {
		for _, s := range p.Steps {
			if s.Foreign && s.Acts() {
				by = append(by, s.String())
			}
		}
	}
	return by
}

// blocked reports whether a packet gets nowhere.
func blocked(o ruleset.Outcome) bool { return o.Fate == ruleset.Dropped || o.Fate == ruleset.Rejected }

// judge compares two ends of a packet, and reports whether they are alike.
//
//	it should go             | it goes                     | that is
//	to the proxy             | elsewhere                   | a finding
//	nowhere                  | where it was sent to        | a finding
//	nowhere, or as it likes  | to the proxy                | a finding
//	nowhere, or as it likes  | where others have it go     | theirs to say
//	anywhere                 | nowhere                     | a warning
//
// What the pod sends to its own loopback is for others to say, too. The proxy's
// hop to the app is not: it is the end of a connection's way through the proxy.
func (c *comparison) judge(t ruleset.Trial, what string, wanted, got ruleset.Outcome, culprits func() []string) bool {
	if wanted == got {
		return true
	}
	by := culprits()
	switch {
	case len(by) == 0, blocked(wanted) && blocked(got):
		// Where no rule of others acts, ours have been found to differ.
	case blocked(got):
		if t.Packet.State != ruleset.Invalid && t.Packet.State != ruleset.Untracked {
			last := by[len(by)-1]
			c.say(&c.warnings, last,
				fmt.Sprintf("rules of others block connections, such as %s%s: %s, by %s", what, describe(t), got, last))
		}
	case c.intercepted(got) || !theirs(t, wanted, got):
		c.find(by, fmt.Sprintf("rules of others change the way of %s%s: %s, wanted %s", what, describe(t), got, wanted))
	}
	return false
}

// intercepted reports whether a packet gets to the proxy, or to a socket that
// is not for its destination.
func (c *comparison) intercepted(got ruleset.Outcome) bool {
	return got.Fate == ruleset.Local || got.Fate == ruleset.TProxied || c.ports[got.Port]
}

// theirs reports whether others may have a packet go where it does.
func theirs(t ruleset.Trial, wanted, got ruleset.Outcome) bool {
	switch {
	case t.Packet.Direction == ruleset.Out && t.Packet.Dst.IsLoopback():
		return true
	case blocked(wanted):
		return got.Fate == ruleset.Rewritten || got.Fate == ruleset.Redirected
	}
	return wanted.Fate == ruleset.Direct && !t.Hop()
}

// find adds a finding about the last of some rules.
func (c *comparison) find(by []string, sentence string) {
	culprit := strings.Join(by[max(0, len(by)-maxCulprits):], "; ")
	c.say(&c.findings, culprit, sentence+"; by "+culprit)
}

// Bounds of what is said.
const (
	maxCulprits = 3  // rules that one finding names
	maxSaid     = 10 // findings, and warnings, about rules of others
)

// remark is a sentence about rules of others.
type remark struct{ culprit, sentence string }

// say adds a sentence about rules that none has been said about.
func (c *comparison) say(to *[]remark, culprit, sentence string) {
	if !slices.ContainsFunc(*to, func(r remark) bool { return r.culprit == culprit }) {
		*to = append(*to, remark{culprit, sentence})
	}
}

// sentences are the first of the remarks.
func sentences(remarks []remark) []string {
	var all []string
	for i, r := range remarks {
		if i == maxSaid {
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
