package trace

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/initimage/ruleset"
)

// decides returns the rule that decides where a packet goes; nil if none does.
//
//	the packet ends | the rule that decides: the last one that
//	diverted        | gives it another destination or socket
//	blocked         | drops or rejects it, or sends it nowhere
//	unchanged       | lets it off in nat or mangle, where packets are diverted
//	kept in the pod | gives it a mark, for the routing that keeps it
//	unknown         | it comes to
func decides(path ruleset.Path) *ruleset.Step {
	for i := len(path.Steps) - 1; i >= 0; i-- {
		step := &path.Steps[i]
		effect, wanted := effectOf(step.Rule.Target), true // of a rule that is not understood
		switch path.Outcome.Fate {
		case ruleset.Redirected, ruleset.Rewritten, ruleset.TProxied:
			wanted = effect == diverts
		case ruleset.Dropped, ruleset.Rejected:
			wanted = effect == blocks
		case ruleset.Direct:
			wanted = effect == letsOff && slices.Contains([]string{"nat", "mangle"}, step.Table[strings.LastIndexByte(step.Table, ' ')+1:])
		case ruleset.Local:
			wanted = effect == marks
		}
		if wanted {
			return step
		}
	}
	return nil
}

// effect is what a target does, as far as it decides where packets go.
type effect int

const (
	noEffect effect = iota
	diverts
	blocks
	letsOff
	marks
)

func effectOf(target ruleset.Target) effect {
	switch target := target.(type) {
	case ruleset.Redirect, ruleset.DNAT, ruleset.TProxy:
		return diverts
	case ruleset.Nowhere, ruleset.Reject:
		return blocks
	case ruleset.Verdict:
		if target == ruleset.Drop {
			return blocks
		}
		return letsOff
	case ruleset.SetMark, ruleset.RestoreMark:
		return marks
	case ruleset.Sequence:
		for _, each := range slices.Backward(target) {
			if effect := effectOf(each); effect != noEffect {
				return effect
			}
		}
	case ruleset.OpaqueTarget:
		if len(target.Args) > 1 {
			return map[string]effect{"REDIRECT": diverts, "DNAT": diverts, "TPROXY": diverts, "MARK": marks}[target.Args[1]]
		}
	}
	return noEffect
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

// Place names a rule by its table, chain and number.
func Place(step ruleset.Step) string {
	if step.Number == 0 {
		return fmt.Sprintf("the policy of %s %s", step.Table, step.Chain)
	}
	return fmt.Sprintf("%s %s rule %d", step.Table, step.Chain, step.Number)
}

// Does says what a rule does to the packets that it accepts, in a few words.
func Does(rule ruleset.Rule) string {
	switch target := rule.Target.(type) {
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
	if rule.Target == nil {
		return "counts it"
	}
	return strings.TrimPrefix(ruleset.Rule{Target: rule.Target}.String(), "-j ")
}

func capital(sentence string) string {
	if sentence == "" {
		return ""
	}
	return strings.ToUpper(sentence[:1]) + sentence[1:]
}

// why says why a leg goes where it goes. A rule that diverts is often alone in a
// chain, and the jump to that chain says why: by its comment, or by asking for more.
func (l *Leg) why() string {
	if l.Decides == nil {
		return l.withoutRule()
	}
	if effectOf(l.Decides.Rule.Target) == diverts {
		for _, step := range slices.Backward(l.Path.Steps) {
			jump, ok := step.Rule.Target.(ruleset.Jump)
			if !ok || jump.Chain != l.Decides.Chain || step.Table != l.Decides.Table {
				continue
			}
			if step.Rule.Comment != "" || len(step.Rule.Matches) > len(l.Decides.Rule.Matches) {
				return Reason(step)
			}
			break
		}
	}
	return Reason(*l.Decides)
}

// withoutRule says why a leg goes where it goes that no rule decides.
func (l *Leg) withoutRule() string {
	last := len(l.Path.Hooks) - 1
	switch {
	case l.Path.Outcome.Fate != ruleset.Dropped:
		return "no rule diverts it"
	case last >= 0 && l.Path.Hooks[last].Name == ruleset.RoutingHook && l.Path.Hooks[last].Out == "":
		return "there is no route"
	case l.Packet.Direction == ruleset.In && (ruleset.ThisHost(l.Packet.Src) || ruleset.ThisHost(l.Packet.Dst)):
		return "the kernel takes no packet from outside with such an address"
	}
	return "the pod is cut off, as it is while its rules are changed"
}
