package kernel

import (
	"slices"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// Cause is what a finding is about. Metrics have it as a label.
type Cause string

// The values of Cause.
const (
	CauseGone       Cause = "gone"       // none of a family's rules is left
	CauseMissing    Cause = "missing"    // there are fewer rules than wanted
	CauseChanged    Cause = "changed"    // there are others, or they stand in another order
	CauseRouting    Cause = "routing"    // policy rules, routes or addresses of lo
	CauseForeign    Cause = "foreign"    // rules or routes of others decide in place of ours
	CauseSettings   Cause = "settings"   // sysctls, or an address, by RequireSettings
	CauseUnfinished Cause = "unfinished" // a change was cut short
	CauseElsewhere  Cause = "elsewhere"  // another backend holds rules of Shunt, too
)

// Causes returns all values of Cause.
func Causes() []Cause {
	return []Cause{
		CauseGone, CauseMissing, CauseChanged, CauseRouting, CauseForeign, CauseSettings, CauseUnfinished, CauseElsewhere,
	}
}

// causesOf returns what differs between what is wanted and what there is of ours.
func causesOf(want, own ruleset.RuleSet) []Cause {
	var causes []Cause
	if len(own.Routing.Intruders) > 0 {
		causes = append(causes, CauseForeign)
		own.Routing.Intruders = nil
	}
	if !slices.Equal(want.Routing.Settings, own.Routing.Settings) {
		causes = append(causes, CauseSettings)
		own.Routing.Settings = want.Routing.Settings
	}
	rules := func(rs ruleset.RuleSet) ruleset.RuleSet { return ruleset.RuleSet{Family: rs.Family, Tables: rs.Tables} }
	routing := func(rs ruleset.RuleSet) ruleset.RuleSet {
		return ruleset.RuleSet{Family: rs.Family, Routing: rs.Routing}
	}
	if !routing(want).Equal(routing(own)) {
		causes = append(causes, CauseRouting)
	}
	wanted, found := countRules(want), countRules(own)
	switch {
	case rules(want).Equal(rules(own)):
	case found == 0:
		causes = append(causes, CauseGone)
	case found < wanted:
		causes = append(causes, CauseMissing)
	default:
		causes = append(causes, CauseChanged)
	}
	return causes
}
