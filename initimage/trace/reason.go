package trace

import (
	"strings"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// decides returns the rule that decides where a packet goes; nil if none does.
//
//	the packet ends     | the rule that decides
//	diverted or blocked | the last one that can do so
//	unchanged           | the last one that let it off in nat or mangle, where packets are diverted
func decides(path ruleset.Path) *ruleset.Step {
	for i := len(path.Steps) - 1; i >= 0; i-- {
		step := path.Steps[i]
		if !step.Acts() {
			continue
		}
		switch path.Outcome.Fate {
		case ruleset.Direct:
			_, verdict := step.Rule.Target.(ruleset.Verdict)
			table := step.Table[strings.LastIndexByte(step.Table, ' ')+1:]
			if verdict && (table == "nat" || table == "mangle") {
				return &step
			}
		case ruleset.Local:
			switch step.Rule.Target.(type) {
			case ruleset.SetMark, ruleset.RestoreMark:
				return &step
			}
		default:
			return &step
		}
	}
	return nil
}

// reason says why a leg goes where it goes: the comment of the rule that decides,
// or without one the rule itself.
func reason(leg *Leg) string {
	if leg.Decides == nil {
		return "no rule says why"
	}
	return Reason(*leg.Decides)
}

// Reason says why a rule is there: its comment, or without one the rule itself.
func Reason(step ruleset.Step) string {
	if step.Rule.Comment != "" {
		return strings.TrimPrefix(step.Rule.Comment, "shunt: ")
	}
	return step.String()
}

func capital(sentence string) string {
	if sentence == "" {
		return ""
	}
	return strings.ToUpper(sentence[:1]) + sentence[1:]
}
