package ruleset

import (
	"strings"
)

// String prints the rule set in the form that iptables-save writes and
// iptables-restore reads. The routing follows as comments, each the arguments of
// ip(8) or sysctl(8).
func (rs RuleSet) String() string {
	var b strings.Builder
	for _, t := range rs.Tables {
		b.WriteString(t.String())
	}
	for _, line := range rs.Routing.Lines(rs.Family) {
		b.WriteString("# " + line + "\n")
	}
	return b.String()
}

// String prints the table in iptables-save form, COMMIT included. It declares a
// built-in chain only if its policy is known: the declaration sets the policy.
func (t Table) String() string {
	var b strings.Builder
	b.WriteString("*" + t.Name + "\n")
	for _, c := range t.Chains {
		switch {
		case !c.Builtin():
			b.WriteString(":" + c.Name + " - [0:0]\n")
		case c.Policy != "":
			b.WriteString(":" + c.Name + " " + c.Policy + " [0:0]\n")
		}
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			b.WriteString("-A " + c.Name + " " + r.String() + "\n")
		}
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

// String prints the rule as it follows the chain's name in iptables-save.
func (r Rule) String() string {
	var words []string
	for _, m := range r.Matches {
		words = append(words, m.args()...)
	}
	if r.Comment != "" {
		words = append(words, "-m", "comment", "--comment", r.Comment)
	}
	if r.Target != nil {
		words = append(words, r.Target.args()...)
	}
	for i, w := range words {
		words[i] = quote(w)
	}
	return strings.Join(words, " ")
}

// quote puts a word in quotation marks if the reader would split it.
func quote(word string) string {
	if word != "" && !strings.ContainsAny(word, " \t\"\\'") {
		return word
	}
	return `"` + escapes.Replace(word) + `"`
}

var escapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)
