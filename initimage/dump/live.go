package dump

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// Attempt is a connection that was made between two dumps.
type Attempt struct {
	From, To netip.AddrPort
	Failure  string // why it was not made; "" if it was
}

const attemptMark = "# shunt connected "

// String prints the attempt on the line that stands between two dumps.
func (a Attempt) String() string {
	from := "-"
	if a.From.IsValid() {
		from = a.From.String()
	}
	return fmt.Sprintf("%s%s %s %s", attemptMark, a.To, from, strings.Join(strings.Fields(a.Failure), " "))
}

// ReadLive reads two dumps with an attempt between them: the pod as it was after it,
// with what was counted meanwhile.
func ReadLive(name, text string) (pod trace.Pod, notes []string, err error) {
	first, rest, found := strings.Cut(text, "\n"+attemptMark)
	line, second, _ := strings.Cut(rest, "\n")
	words := strings.SplitN(line, " ", 3)
	if !found || len(words) < 3 {
		return pod, nil, fmt.Errorf("%s: no connection between two dumps", name)
	}
	attempt := &trace.Live{Failure: words[2]}
	if attempt.To, err = netip.ParseAddrPort(words[0]); err != nil {
		return pod, nil, fmt.Errorf("%s: %w", name, err)
	}
	attempt.From, _ = netip.ParseAddrPort(words[1]) // none of a connection that failed
	before, _, err := Read(name, []File{{Name: name + ", before", Text: first}})
	if err != nil {
		return pod, nil, err
	}
	if pod, notes, err = Read(name, []File{{Name: name + ", after", Text: second}}); err != nil {
		return pod, nil, err
	}
	attempt.Counted = counted(before, pod)
	pod.Live = attempt
	return pod, notes, nil
}

// counted returns the rules that have counted packets between two readings of a pod,
// with how many, in the order of the rules. Of rules that somebody has changed
// meanwhile it says nothing.
func counted(before, after trace.Pod) []trace.Count {
	var all []trace.Count
	earlier := map[string]uint64{}
	eachRule(before, func(family ruleset.Family, step ruleset.Step) {
		earlier[fmt.Sprint(family, step)] = *step.Rule.Packets
	})
	eachRule(after, func(family ruleset.Family, step ruleset.Step) {
		was, known := earlier[fmt.Sprint(family, step)]
		if now := *step.Rule.Packets; known && now > was {
			all = append(all, trace.Count{Family: family, Rule: step, Packets: now - was})
		}
	})
	return all
}

// eachRule calls do for each rule that counts.
func eachRule(pod trace.Pod, do func(family ruleset.Family, step ruleset.Step)) {
	for _, side := range pod.Sides {
		for _, set := range side.Sets {
			for step := range set.Rules() {
				if step.Rule.Packets != nil {
					do(side.Family, step)
				}
			}
		}
	}
}
