package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/inject"
)

// Tally counts what became of workloads.
type Tally struct {
	Injected, Denied int
	// Unread is how many documents could not be read.
	Unread int
	Left   map[inject.Reason]int
}

// count takes what was decided of one workload, or why it is denied.
func (t *Tally) count(reason inject.Reason, err error) {
	switch {
	case err != nil:
		t.Denied++
	case reason == inject.ReasonInjected:
		t.Injected++
	default:
		if t.Left == nil {
			t.Left = map[inject.Reason]int{}
		}
		t.Left[reason]++
	}
}

// Add takes another tally into this one.
func (t *Tally) Add(other Tally) {
	t.Injected, t.Denied, t.Unread = t.Injected+other.Injected, t.Denied+other.Denied, t.Unread+other.Unread
	if t.Left == nil {
		t.Left = map[inject.Reason]int{}
	}
	for reason, n := range other.Left {
		t.Left[reason] += n
	}
}

// String is the tally on one line.
func (t Tally) String() string {
	left := 0
	var reasons []string
	for _, reason := range slices.Sorted(maps.Keys(t.Left)) {
		left += t.Left[reason]
		reasons = append(reasons, fmt.Sprintf("%s %d", reason, t.Left[reason]))
	}
	line := fmt.Sprintf("injected %d, left alone %d", t.Injected, left)
	if left > 0 {
		line += " (" + strings.Join(reasons, ", ") + ")"
	}
	line += fmt.Sprintf(", denied %d", t.Denied)
	if t.Unread > 0 {
		line += fmt.Sprintf(", unreadable documents %d", t.Unread)
	}
	return line
}
