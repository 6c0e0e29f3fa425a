package trace

import (
	"fmt"
	"strings"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// decides returns the rule that decides where a packet goes; nil if none does.
//
//	the packet ends     | the rule that decides
//	diverted or blocked | the last one that can do so
//	unchanged           | the last one that let it off in nat or mangle, where packets are diverted
//	kept in the pod     | the last one that marked it, for the routing that keeps it
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

// place is that of a Met in a leg's hooks.
type place struct{ hook, pass, met int }

// deciding returns the place of the rule that decides where the leg goes.
func (l *Leg) deciding() (at place, found bool) {
	if l.Decides == nil {
		return place{}, false
	}
	for h := len(l.Path.Hooks) - 1; h >= 0; h-- {
		passes := l.Path.Hooks[h].Passes
		for p := len(passes) - 1; p >= 0; p-- {
			for m := len(passes[p].Met) - 1; m >= 0; m-- {
				met := passes[p].Met[m]
				if met.Number == l.Decides.Number && met.Chain == l.Decides.Chain && met.Table == l.Decides.Table {
					return place{h, p, m}, true
				}
			}
		}
	}
	return place{}, false
}

// Reason says why a rule is there: its comment, or without one the rule itself.
func Reason(step ruleset.Step) string {
	if step.Rule.Comment != "" {
		return strings.TrimPrefix(step.Rule.Comment, "shunt: ")
	}
	return step.String()
}

// Does says what a rule does to the packets that it accepts, in a few words.
func Does(rule ruleset.Rule) string {
	switch target := rule.Target.(type) {
	case nil:
		return "counts it"
	case ruleset.Verdict:
		return string(target)
	case ruleset.Jump:
		if target.Goto {
			return "goto " + target.Chain
		}
		return target.Chain
	case ruleset.Redirect:
		return fmt.Sprintf("REDIRECT to port %d of this pod", target.Port)
	case ruleset.TProxy:
		return fmt.Sprintf("TPROXY to the socket on port %d", target.Port)
	case ruleset.Reject:
		return "REJECT"
	case ruleset.DNAT:
		return "DNAT to another destination"
	case ruleset.Nowhere:
		return "DNAT to 0.0.0.0, which the kernel drops"
	case ruleset.SetMark:
		if target.Connection {
			return fmt.Sprintf("the connection gets the mark %#x", target.Value)
		}
		return fmt.Sprintf("the packet gets the mark %#x", target.Value)
	case ruleset.SaveMark:
		return "the connection gets the packet's mark"
	case ruleset.RestoreMark:
		return "the packet gets the connection's mark"
	case ruleset.NoTrack:
		return "hides it from conntrack"
	case ruleset.ConntrackZone:
		return fmt.Sprintf("zone %d of conntrack", target.Zone)
	}
	text := ruleset.Rule{Target: rule.Target}.String()
	return strings.TrimPrefix(text, "-j ")
}

func capital(sentence string) string {
	if sentence == "" {
		return ""
	}
	return strings.ToUpper(sentence[:1]) + sentence[1:]
}

// why says why a leg goes where it goes, or that no rule decides it. A rule that
// diverts often does nothing else, in a chain of its own; then the jump to that
// chain says why.
func (l *Leg) why() string {
	if l.Decides == nil {
		return "no rule decides it"
	}
	switch l.Decides.Rule.Target.(type) {
	case ruleset.Redirect, ruleset.TProxy, ruleset.DNAT:
		for i := len(l.Path.Steps) - 1; i >= 0; i-- {
			jump, ok := l.Path.Steps[i].Rule.Target.(ruleset.Jump)
			if ok && jump.Chain == l.Decides.Chain && l.Path.Steps[i].Table == l.Decides.Table {
				return Reason(l.Path.Steps[i])
			}
		}
	}
	return Reason(*l.Decides)
}
