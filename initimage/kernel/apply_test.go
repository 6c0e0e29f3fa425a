package kernel

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// foreign is what others may have in a namespace: rules before and after the place of ours, and a
// rule that mentions names of ours.
const foreign = `*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:CNI-HOSTPORT - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT
-A CNI-HOSTPORT -p tcp -m tcp --dport 80 -m comment --comment "not shunt: at all" -j RETURN
-A OUTPUT -d 192.0.2.1/32 -j ACCEPT
COMMIT
*filter
:INPUT DROP [0:0]
-A INPUT -m limit --limit 1/sec -j ACCEPT
COMMIT
`

func specs(t *testing.T) []interception.Spec {
	t.Helper()
	var all []interception.Spec
	for _, args := range [][]string{
		{"-m", "REDIRECT"}, {"-m", "TPROXY"}, {"-m", "TPROXY", "-t", "7", "-r", "9"},
		{"-m", "REDIRECT", "-b", "80", "-i", "10.0.0.0/8"}, {"-m", "TPROXY", "-k", "net1", "-c", "net2"},
	} {
		spec, _, err := interception.ParseArgs(args)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, spec)
	}
	return all
}

func both(spec interception.Spec) []ruleset.RuleSet {
	return []ruleset.RuleSet{ruleset.Build(spec, ruleset.IPv4), ruleset.Build(spec, ruleset.IPv6)}
}

// used returns a Fake that holds rules of others.
func used(t *testing.T) *Fake {
	t.Helper()
	f := NewFake()
	for _, family := range ruleset.Families {
		text := foreign
		if family == ruleset.IPv6 {
			text = "" // one family may be empty
		}
		rs, err := ruleset.Parse(family, text)
		if err != nil {
			t.Fatal(err)
		}
		f.Sets[family] = rs
	}
	return f
}

// dump prints what a Fake holds, without empty tables and built-in chains: a kernel keeps those
// once they have been used.
func dump(t *testing.T, f *Fake) string {
	t.Helper()
	text := ""
	for _, family := range ruleset.Families {
		set := f.Sets[family]
		set.Tables, set.Routing = nil, routingOf(set)
		for _, table := range f.Sets[family].Tables {
			table.Chains = slices.DeleteFunc(slices.Clone(table.Chains), func(c ruleset.Chain) bool {
				return c.Builtin() && len(c.Rules) == 0 && c.Policy != string(ruleset.Drop)
			})
			if len(table.Chains) > 0 {
				set.Tables = append(set.Tables, table)
			}
		}
		set.Canonical()
		text += set.String()
	}
	if f.Former != nil {
		text += "before:\n" + dump(t, f.Former)
	}
	return text
}

// ownedBy returns Shunt's part of what a Fake holds.
func ownedBy(t *testing.T, f *Fake, family ruleset.Family) ruleset.RuleSet {
	t.Helper()
	rs, err := read(context.Background(), f, family)
	if err != nil {
		t.Fatal(err)
	}
	return rs.Owned()
}

func mustApply(t *testing.T, f *Fake, spec interception.Spec) Result {
	t.Helper()
	result, err := Apply(context.Background(), f, both(spec), true)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// routingOf returns the routing as a value of its own, which can be sorted.
func routingOf(rs ruleset.RuleSet) ruleset.Routing {
	own := rs.Routing
	own.Addresses, own.Rules, own.Routes = slices.Clone(own.Addresses), slices.Clone(own.Rules), slices.Clone(own.Routes)
	return own
}

func TestApplyTwiceIsOnce(t *testing.T) {
	for _, spec := range specs(t) {
		f := used(t)
		if !mustApply(t, f, spec).Changed {
			t.Error("a first run reports no change")
		}
		first := dump(t, f)
		if mustApply(t, f, spec).Changed {
			t.Error("a second run reports a change")
		}
		if diff := cmp.Diff(first, dump(t, f)); diff != "" {
			t.Errorf("after the second run (-first +second):\n%s", diff)
		}
	}
}

// TestApplyOverAnother goes from every spec to every other. The result must be what a fresh run
// gives, with the rules of others as they were.
func TestApplyOverAnother(t *testing.T) {
	for i, from := range specs(t) {
		for j, to := range specs(t) {
			fake, fresh := used(t), used(t)
			mustApply(t, fake, from)
			mustApply(t, fake, to)
			mustApply(t, fresh, to)
			for _, family := range ruleset.Families {
				if diff := ruleset.Diff(ownedBy(t, fresh, family), ownedBy(t, fake, family)); diff != nil {
					t.Errorf("spec %d over %d, %s: %q", j, i, family, diff)
				}
			}
			for _, line := range []string{"CNI-HOSTPORT", "192.0.2.1/32", "--limit 1/sec", "INPUT DROP"} {
				if !strings.Contains(dump(t, fake), line) {
					t.Errorf("spec %d over %d: %q of others is gone", j, i, line)
				}
			}
		}
	}
}

// TestOursComeFirst checks that our jumps move ahead of a rule that others inserted before them.
func TestOursComeFirst(t *testing.T) {
	fake := used(t)
	spec := interception.Default()
	mustApply(t, fake, spec)
	set := fake.Sets[ruleset.IPv4]
	output := set.Chain("nat", "OUTPUT")
	last := len(output.Rules) - 1
	output.Rules = append([]ruleset.Rule{output.Rules[last]}, output.Rules[:last]...)
	if output.Rules[0].Owned() {
		t.Fatal("the test did not put a foreign rule first")
	}
	if !mustApply(t, fake, spec).Changed {
		t.Error("a foreign rule before ours was not noticed")
	}
	set = fake.Sets[ruleset.IPv4]
	if first := set.Chain("nat", "OUTPUT").Rules[0]; !first.Owned() {
		t.Errorf("first rule of OUTPUT: %s", first)
	}
}

// TestFailureIsUndone makes each effect fail in turn. The namespace must be as it was, and the
// error an ErrApply.
func TestFailureIsUndone(t *testing.T) {
	failures := 0
	for i, from := range specs(t) {
		start := used(t)
		mustApply(t, start, from)
		before := dump(t, start)
		for j, to := range specs(t) {
			for n := 1; ; n++ {
				f := &Fake{Sets: maps.Clone(start.Sets), Faults: &Faults{FailAt: n}}
				_, err := Apply(context.Background(), f, both(to), true)
				if err == nil {
					break
				}
				failures++
				if !errors.Is(err, ErrFake) || errors.Is(err, ErrApply) == errors.Is(err, ErrPreflight) {
					t.Fatalf("error %v", err)
				}
				if diff := cmp.Diff(before, dump(t, f)); diff != "" {
					t.Fatalf("spec %d over %d, effect %d failed (-before +after):\n%s", j, i, n, diff)
				}
			}
		}
	}
	t.Logf("%d failures undone", failures)
}

// lossy is a Namespace that loses a rule and reports success.
type lossy struct{ *Fake }

func (l lossy) Restore(ctx context.Context, tx Transaction) error {
	for i := range tx.Tables {
		steps := &tx.Tables[i].Steps
		for n, s := range *steps {
			if s.Command == AppendRule {
				*steps = append((*steps)[:n:n], (*steps)[n+1:]...)
				break
			}
		}
	}
	return l.Fake.Restore(ctx, tx)
}

func TestWhatIsNotThereIsNoticed(t *testing.T) {
	_, err := Apply(context.Background(), lossy{NewFake()}, both(interception.Default()), true)
	if !errors.Is(err, ErrApply) || !strings.Contains(err.Error(), "does not hold what was written") {
		t.Errorf("error %v", err)
	}
}
