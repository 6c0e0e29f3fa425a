package ruleset

import "slices"

// Extension is a match or target that a kernel may lack.
type Extension struct {
	Name   string // as iptables names it
	Target bool   // a target rather than a match
}

// String returns the extension's kind and name.
func (e Extension) String() string {
	if e.Target {
		return `target "` + e.Name + `"`
	}
	return `match "` + e.Name + `"`
}

// Extensions returns the matches and targets that the rules use, each once, in the
// order of their first use. Verdicts and jumps are no extensions.
func (rs RuleSet) Extensions() []Extension {
	var all []Extension
	add := func(e Extension) {
		if !slices.Contains(all, e) {
			all = append(all, e)
		}
	}
	for step := range rs.Rules() {
		for _, m := range step.Rule.Matches {
			if args := m.args(); args[0] == "-m" {
				add(Extension{Name: args[1]})
			}
		}
		switch target := step.Rule.Target.(type) {
		case nil, Verdict, Jump:
		default:
			add(Extension{Name: target.args()[1], Target: true})
		}
	}
	return all
}
