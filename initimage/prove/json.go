package prove

import (
	"math/big"

	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// The JSON form has names of its own, which programs rely on.

type resultJSON struct {
	Pod        string          `json:"pod"`
	Statements []statementJSON `json:"statements"`
}

type statementJSON struct {
	Name           string          `json:"name"`
	Text           string          `json:"text"`
	Verdict        Verdict         `json:"verdict"`
	Classes        int             `json:"classes"` // of connections that it was checked for
	Why            string          `json:"why,omitempty"`
	Exceptions     []exceptionJSON `json:"exceptions,omitempty"`
	Counterexample *exampleJSON    `json:"counterexample,omitempty"`
}

type exceptionJSON struct {
	Families []ruleset.Family `json:"families"`
	From     trace.Actor      `json:"from"`
	Set      string           `json:"set"` // "" for all
	Reason   string           `json:"reason"`
	Example  string           `json:"example"`
}

type exampleJSON struct {
	From    trace.Actor   `json:"from"`
	Set     string        `json:"set"`
	Example string        `json:"example"`
	Journey trace.Journey `json:"journey"`
}

// Document is results as JSON.
func Document(results []Result) any {
	all := []resultJSON{}
	for _, r := range results {
		one := resultJSON{Pod: r.Pod.Name}
		for _, s := range r.Statements {
			form := statementJSON{Name: s.Name, Text: s.Text, Verdict: s.Verdict, Classes: s.Classes, Why: s.Why}
			for _, e := range s.Exceptions {
				form.Exceptions = append(form.Exceptions, exceptionJSON{e.Families, e.Example.Connection.From, e.Example.Set, e.Reason,
					trace.Describe(e.Example.Connection.Packet)})
			}
			if e := s.Counterexample; e != nil {
				connection := e.Connection
				form.Counterexample = &exampleJSON{connection.From, e.Set, trace.Describe(connection.Packet), e.Journey()}
			}
			one.Statements = append(one.Statements, form)
		}
		all = append(all, one)
	}
	return map[string]any{"pods": all}
}

type differenceJSON struct {
	Families []ruleset.Family `json:"families"`
	From     trace.Actor      `json:"from"`
	Mark     uint32           `json:"mark,omitempty"` // of the proxy's socket
	Set      string           `json:"set"`            // "" for all
	Share    float64          `json:"share"`          // of what the sender may send
	Old      string           `json:"old"`
	New      string           `json:"new"`
	Unknown  bool             `json:"unknown,omitempty"`
	Example  string           `json:"example"`
}

// DiffDocument is comparisons as JSON.
func DiffDocument(all []Comparison) any {
	comparisons := []any{}
	for _, c := range all {
		differences := []differenceJSON{}
		for _, d := range c.Differences {
			connection := d.Example.Connection
			differences = append(differences, differenceJSON{
				d.Families, connection.From, d.mark, d.Example.Set, float(d.Share), d.Old, d.New, d.Unknown,
				trace.Describe(connection.Packet),
			})
		}
		comparisons = append(comparisons, map[string]any{"old": c.Old.Name, "new": c.New.Name, "differences": differences})
	}
	return map[string]any{"comparisons": comparisons}
}

func float(r *big.Rat) float64 {
	value, _ := r.Float64()
	return value
}
