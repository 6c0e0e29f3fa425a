package prove

import (
	"slices"

	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// Verdict says whether a statement holds.
type Verdict string

// The verdicts.
const (
	Proved  Verdict = "proved"  // for all connections, but for the exceptions that are listed
	Refuted Verdict = "refuted" // there is a counterexample
	Unknown Verdict = "unknown" // it depends on what is not known
)

// Statement is something about all connections of a pod, and whether it holds.
type Statement struct {
	Name       string // one word: "out"
	Text       string // in plain English
	Verdict    Verdict
	Classes    int // of connections that it was checked for
	Exceptions []Exception
	// Counterexample is a connection for which it does not hold; nil for none.
	Counterexample *Example
	Why            string // it is unknown, or does not hold

	places map[exceptionKey]int
}

// Exception is a reason for which connections are excepted.
type Exception struct {
	Reason   string
	Families []ruleset.Family
	Example  Example
	boxes    []ruleset.Box
	whole    ruleset.Box
}

// Example is a connection, and those that go its way for the same reason.
type Example struct {
	Connection trace.Connection
	Set        string // in words: "tcp to port 22"; "" for all of the sender

	pod *trace.Pod // as seen by the interface that the connection leaves by
}

// Journey follows the connection.
func (e *Example) Journey() trace.Journey { return trace.Walk(*e.pod, e.Connection) }

func (s *Statement) unknown(why string) {
	if s.Verdict == Proved {
		s.Verdict, s.Why = Unknown, why
	}
}

// refute takes a connection for which the statement does not hold. The first is
// kept.
func (s *Statement) refute(f found, why string) {
	if s.Verdict != Refuted {
		example := f.example()
		s.Verdict, s.Why, s.Counterexample = Refuted, why, &example
	}
}

// except takes a class that is excepted. Those of one sender with one reason are put
// together.
func (s *Statement) except(f found, reason string) {
	family := f.sender.box.Space().Family
	key := exceptionKey{reason, f.sender.actor, f.sender.to, family}
	if i, known := s.places[key]; known {
		s.Exceptions[i].boxes = append(s.Exceptions[i].boxes, f.Box)
		return
	}
	if s.places == nil {
		s.places = map[exceptionKey]int{}
	}
	s.places[key] = len(s.Exceptions)
	s.Exceptions = append(s.Exceptions, Exception{reason, []ruleset.Family{family}, f.example(), []ruleset.Box{f.Box}, f.sender.box})
}

// exceptionKey tells the exceptions of a statement apart.
type exceptionKey struct {
	reason string
	actor  trace.Actor
	to     target
	family ruleset.Family
}

// finish describes the exceptions. Those that read the same for both families become
// one.
func (s *Statement) finish() {
	var all []Exception
	for _, e := range s.Exceptions {
		e.Example.Set = describe(ruleset.Join(e.boxes), e.whole)
		i := slices.IndexFunc(all, func(other Exception) bool {
			return other.Reason == e.Reason && other.Example.Set == e.Example.Set &&
				other.Example.Connection.From == e.Example.Connection.From
		})
		switch {
		case i < 0:
			all = append(all, e)
		case !slices.Contains(all[i].Families, e.Families[0]):
			all[i].Families = append(all[i].Families, e.Families[0])
		}
	}
	s.Exceptions = all
}
