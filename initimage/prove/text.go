package prove

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// Summary says in one line whether a statement holds, and if not, for what.
func (s *Statement) Summary() string {
	switch s.Verdict {
	case Refuted:
		return fmt.Sprintf("%s: not so: %s, %s", s.Text, s.Counterexample, s.Why)
	case Unknown:
		return fmt.Sprintf("%s: not proved: %s", s.Text, s.Why)
	}
	return s.Text + ": proved"
}

// String names the connection.
func (e *Example) String() string {
	text := fmt.Sprintf("%s: %s", e.Connection.From, trace.Describe(e.Connection.Packet))
	if e.Set != "" {
		text += " (and all " + e.Set + ")"
	}
	return text
}

// Text writes results for people.
func Text(w io.Writer, results []Result) error {
	var b strings.Builder
	for i := range results {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "# %s\n", results[i].Pod.Name)
		for _, s := range results[i].Statements {
			s.write(&b)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (s *Statement) write(b *strings.Builder) {
	word := map[Verdict]string{Proved: "PROVED", Refuted: "NOT SO", Unknown: "NOT PROVED"}[s.Verdict]
	fmt.Fprintf(b, "%-10s  %s", word, s.Text)
	if len(s.Exceptions) > 0 {
		b.WriteString(", except")
	}
	fmt.Fprintf(b, " (%s).\n", count(s.Classes, "class", "classes"))
	for _, e := range s.Exceptions {
		fmt.Fprintf(b, "    - %s: %s\n", who(&e.Example, 0, e.Families), e.Reason)
	}
	if s.Why != "" {
		fmt.Fprintf(b, "    %s\n", s.Why)
	}
	if s.Counterexample != nil {
		fmt.Fprintf(b, "    %s\n", s.Counterexample)
		for _, leg := range s.Counterexample.Journey().Legs {
			fmt.Fprintf(b, "      %s: %s\n", leg.Title, trace.Describe(leg.Packet))
			for _, step := range leg.Path.Steps {
				fmt.Fprintf(b, "        %s\n", step)
			}
			fmt.Fprintf(b, "        -> %s\n", leg.Outcome)
		}
	}
}

// who says whose connections a set has, and which.
func who(e *Example, mark uint32, families []ruleset.Family) string {
	text := string(e.Connection.From)
	if mark != 0 {
		text += fmt.Sprintf(" with mark %#x", mark)
	}
	if len(families) == 1 {
		text += ", " + families[0].String()
	}
	return text + ": " + cmp.Or(e.Set, "all")
}

// DiffText writes comparisons for people.
func DiffText(w io.Writer, all []Comparison) error {
	var b strings.Builder
	for i, c := range all {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "--- %s\n+++ %s\n", c.Old.Name, c.New.Name)
		if len(c.Differences) == 0 {
			b.WriteString("Every packet goes the same way.\n")
		}
		for _, d := range c.Differences {
			fmt.Fprintf(&b, "\n%s: %s\n", who(&d.Example, d.mark, d.Families), share(d.Share))
			fmt.Fprintf(&b, "  - %s\n  + %s\n  such as %s\n", d.Old, d.New, trace.Describe(d.Example.Connection.Packet))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// describe names the first of some boxes, and says how many more there are; "" for
// the whole.
func describe(boxes []ruleset.Box, whole ruleset.Box) string {
	first := boxes[0].Describe(whole)
	if len(boxes) == 1 {
		return first
	}
	return fmt.Sprintf("%s, and %s", cmp.Or(first, "all"), count(len(boxes)-1, "set more", "sets more"))
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
