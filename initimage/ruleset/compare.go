package ruleset

import (
	"reflect"
	"slices"
	"strings"
)

// Equal reports whether two rule sets print alike. It prints them only if that is in
// doubt: most often, all of their rules are the same, or one has none.
func (rs RuleSet) Equal(other RuleSet) bool {
	switch {
	case rs.Family != other.Family || rs.countRules() != other.countRules():
		return false
	case rs.same(other):
		return true
	}
	return rs.String() == other.String()
}

func (rs RuleSet) countRules() (n int) {
	for _, t := range rs.Tables {
		for _, c := range t.Chains {
			n += len(c.Rules)
		}
	}
	return n
}

// same reports whether all that is printed of two rule sets is the same.
func (rs RuleSet) same(other RuleSet) bool {
	return reflect.DeepEqual(rs.Routing, other.Routing) && slices.EqualFunc(rs.Tables, other.Tables, func(a, b Table) bool {
		return a.Name == b.Name && slices.EqualFunc(a.Chains, b.Chains, func(a, b Chain) bool {
			return a.Name == b.Name && a.Policy == b.Policy && reflect.DeepEqual(a.Rules, b.Rules)
		})
	})
}

// Diff returns what got lacks of want ("- line") and what it has beyond ("+ line"),
// as lines of iptables-save, in no order. Equal rule sets have no difference; for
// rule sets that differ only in the order of rules it is one line that says so.
func Diff(want, got RuleSet) []string {
	if want.Equal(got) {
		return nil
	}
	wanted, found := qualifiedLines(want), qualifiedLines(got)
	var diff []string
	for _, line := range minus(wanted, found) {
		diff = append(diff, "- "+line)
	}
	for _, line := range minus(found, wanted) {
		diff = append(diff, "+ "+line)
	}
	if len(diff) == 0 {
		diff = []string{"! the same rules in another order"}
	}
	return diff
}

// qualifiedLines returns the lines of all tables, each with its table's name before
// it.
func qualifiedLines(rs RuleSet) []string {
	var lines []string
	for _, t := range rs.Tables {
		for line := range strings.Lines(t.String()) {
			if strings.HasPrefix(line, "-A") || strings.HasPrefix(line, ":") {
				lines = append(lines, t.Name+" "+strings.TrimSpace(line))
			}
		}
	}
	return append(lines, rs.Routing.Lines(rs.Family)...)
}

// minus returns the lines of a without those of b, counting repetitions.
func minus(a, b []string) []string {
	count := map[string]int{}
	for _, line := range b {
		count[line]++
	}
	var rest []string
	for _, line := range a {
		if count[line]--; count[line] < 0 {
			rest = append(rest, line)
		}
	}
	return rest
}
