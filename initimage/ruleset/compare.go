package ruleset

import "strings"

// Equal reports whether two rule sets would be printed alike.
func (rs RuleSet) Equal(other RuleSet) bool {
	return rs.Family == other.Family && rs.String() == other.String()
}

// Diff lists what of want is missing from got ("- line") and what got has
// beyond it ("+ line"), a line of iptables-save each, without order. Equal
// rule sets have none; rule sets that differ only in the order of rules say
// so in one line.
func Diff(want, got RuleSet) []string {
	if want.Equal(got) {
		return nil
	}
	wanted, found := qualifiedLines(want), qualifiedLines(got)
	var diff []string
	for _, line := range subtract(wanted, found) {
		diff = append(diff, "- "+line)
	}
	for _, line := range subtract(found, wanted) {
		diff = append(diff, "+ "+line)
	}
	if len(diff) == 0 {
		diff = []string{"! the same rules in another order"}
	}
	return diff
}

// qualifiedLines puts the table's name before each of its lines.
func qualifiedLines(rs RuleSet) []string {
	var lines []string
	for _, t := range rs.Tables {
		for line := range strings.Lines(t.String()) {
			if strings.HasPrefix(line, "-A") || strings.HasPrefix(line, ":") {
				lines = append(lines, t.Name+" "+strings.TrimSpace(line))
			}
		}
	}
	return append(lines, rs.Routing.lines(rs.Family)...)
}

// subtract returns the lines of a without those of b, counting repetitions.
func subtract(a, b []string) []string {
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
