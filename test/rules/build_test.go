package rules

import (
	"flag"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
)

var update = flag.Bool("update", false, "write the rules and errors that are built into the cases")

var sectionOf = map[ruleset.Family]string{ruleset.IPv4: "v4", ruleset.IPv6: "v6"}

// leastCases is the least number of cases: with fewer, files are missing.
const leastCases = 40

var samePrefix = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

func corpus(t testing.TB) []Case {
	t.Helper()
	cases, err := Load("testdata/cases")
	if err != nil {
		t.Fatal(err)
	}
	return cases
}

// leastVariants is the least number of cases of SystemTProxy that it takes without
// conntrack, too.
const leastVariants = 25

// cases returns the corpus, and the variants of its cases.
func cases(t testing.TB) []Case {
	t.Helper()
	all := corpus(t)
	variants := Variants(all)
	if len(variants) < leastVariants {
		t.Errorf("%d cases without conntrack; at least %d are expected", len(variants), leastVariants)
	}
	return slices.Concat(all, variants)
}

// TestBuild, the first executor, parses the arguments, builds the rules, prints and parses
// them.
func TestBuild(t *testing.T) {
	executed := 0
	for _, test := range corpus(t) {
		if test.Refused() {
			continue
		}
		executed++
		t.Run(test.Name, func(t *testing.T) {
			spec, opts, err := test.Spec()
			if err != nil {
				t.Fatal(err)
			}
			again, optsAgain, err := interception.ParseArgs(interception.Args(spec, opts))
			if err != nil {
				t.Fatalf("the printed arguments do not parse: %v", err)
			}
			if diff := cmp.Diff([]any{spec, opts}, []any{again, optsAgain}, samePrefix); diff != "" {
				t.Errorf("the arguments, printed and parsed (-once +twice):\n%s", diff)
			}
			for _, family := range ruleset.Families {
				checkRules(t, test, spec, family)
			}
			write(t, test)
		})
	}
	if executed < leastCases {
		t.Errorf("%d cases with rules; at least %d are expected", executed, leastCases)
	}
}

func checkRules(t *testing.T, test Case, spec interception.Spec, family ruleset.Family) {
	t.Helper()
	built := ruleset.Build(spec, family)
	parsed, err := ruleset.Parse(family, built.String())
	if err != nil {
		t.Fatalf("the printed rules do not parse: %v", err)
	}
	if diff := ruleset.Diff(built, parsed); diff != nil {
		t.Errorf("%s, printed and parsed: %q", family, diff)
	}
	if *update {
		test.SetSection(sectionOf[family], built.String())
		return
	}
	want, _ := test.Section(sectionOf[family])
	if diff := cmp.Diff(want, built.String()); diff != "" {
		t.Errorf("%s (-want +built):\n%s", family, diff)
	}
}

// TestRefused checks the errors of arguments that shunt-init refuses.
func TestRefused(t *testing.T) {
	for _, test := range corpus(t) {
		if !test.Refused() {
			continue
		}
		t.Run(test.Name, func(t *testing.T) {
			_, _, err := test.Spec()
			if err == nil {
				t.Fatalf("%q were taken", test.Args)
			}
			if *update {
				test.SetSection("error", err.Error()+"\n")
				write(t, test)
				return
			}
			want, _ := test.Section("error")
			if diff := cmp.Diff(want, err.Error()+"\n"); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

// TestEveryFlagHasACase checks that every flag of shunt-init is in a case.
func TestEveryFlagHasACase(t *testing.T) {
	used := map[string]bool{}
	for _, c := range corpus(t) {
		for _, word := range c.Args {
			name, _, _ := strings.Cut(word, "=")
			used[name] = true
		}
	}
	for line := range strings.Lines(interception.Usage()) {
		names := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == ',' })
		if i := slices.IndexFunc(names, func(w string) bool { return !strings.HasPrefix(w, "-") }); i >= 0 {
			names = names[:i]
		}
		if len(names) > 0 && !slices.ContainsFunc(names, func(n string) bool { return used[n] }) {
			t.Errorf("no case uses %s", strings.Join(names, " or "))
		}
	}
}

func write(t *testing.T, c Case) {
	t.Helper()
	if !*update {
		return
	}
	if err := os.WriteFile(c.Path, txtar.Format(c.Archive), 0o600); err != nil {
		t.Fatal(err)
	}
}
