package exchange

import (
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
)

// Document is all that a page knows.
type Document struct {
	Subjects []Subject
	Asked    *trace.Question // that the page opens with; nil for the first path
}

// Subject is a pod, or one pod as several modes of interception make it.
type Subject struct {
	Name  string
	Modes []Mode
}

// Mode is a pod as one mode of interception makes it.
type Mode struct {
	Name    string // REDIRECT, TPROXY; "" where there is only one
	Current bool   // the source asks for it
	Pod     Pod
}

// Pod is a trace.Pod whose rules have JSON: a match and a target are objects with
// one key, the name of their type.
type Pod struct{ trace.Pod }

// Each of these has all fields of the type that it embeds, and one written otherwise.
type (
	pod struct {
		trace.Pod
		Sides []side
	}
	side struct {
		trace.Side
		Sets []set
	}
	set struct {
		ruleset.RuleSet
		Tables []table
	}
	table struct {
		ruleset.Table
		Chains []chain
	}
	chain struct {
		ruleset.Chain
		Rules []rule
	}
	rule struct {
		ruleset.Rule
		Matches []tagged `json:",omitempty"`
		Target  *tagged  `json:",omitempty"`
	}
)

// tagged is a value with the name of its type.
type tagged struct{ value any }

// kinds are the types of matches and targets, by name.
var kinds = kindsOf(
	ruleset.Source{}, ruleset.Destination{}, ruleset.InInterface{}, ruleset.OutInterface{}, ruleset.Protocol{}, ruleset.Ports{},
	ruleset.SYN{}, ruleset.Owner{}, ruleset.Mark{}, ruleset.Conntrack{}, ruleset.AddressType{}, ruleset.OpaqueMatch{},
	ruleset.Verdict(""), ruleset.Reject{}, ruleset.Jump{}, ruleset.Redirect{}, ruleset.DNAT{}, ruleset.Nowhere{}, ruleset.TProxy{},
	ruleset.SetMark{}, ruleset.SaveMark{}, ruleset.RestoreMark{}, ruleset.NoTrack{}, ruleset.ConntrackZone{}, ruleset.OpaqueTarget{},
)

func kindsOf(examples ...any) map[string]reflect.Type {
	byName := map[string]reflect.Type{}
	for _, example := range examples {
		kind := reflect.TypeOf(example)
		byName[kind.Name()] = kind
	}
	return byName
}

// sequence is the tag of a ruleset.Sequence, whose targets are tagged too.
const sequence = "Sequence"

// MarshalJSON writes {"Type": value}.
func (t tagged) MarshalJSON() ([]byte, error) {
	if all, is := t.value.(ruleset.Sequence); is {
		targets := make([]tagged, len(all))
		for i, target := range all {
			targets[i] = tagged{target}
		}
		return json.Marshal(map[string][]tagged{sequence: targets})
	}
	name := reflect.TypeOf(t.value).Name()
	if kinds[name] == nil {
		return nil, fmt.Errorf("no match or target is called %q", name)
	}
	return json.Marshal(map[string]any{name: t.value})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (t *tagged) UnmarshalJSON(text []byte) error {
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(text, &parts); err != nil {
		return err
	}
	if len(parts) != 1 {
		return fmt.Errorf("%d types of a match or target; accepted: 1", len(parts))
	}
	for name, part := range parts {
		if name == sequence {
			return t.readSequence(part)
		}
		kind := kinds[name]
		if kind == nil {
			return fmt.Errorf("no match or target is called %q", name)
		}
		value := reflect.New(kind)
		if err := json.Unmarshal(part, value.Interface()); err != nil {
			return err
		}
		t.value = value.Elem().Interface()
	}
	return nil
}

func (t *tagged) readSequence(text []byte) error {
	var targets []tagged
	if err := json.Unmarshal(text, &targets); err != nil {
		return err
	}
	all := ruleset.Sequence{}
	for _, one := range targets {
		target, is := one.value.(ruleset.Target)
		if !is {
			return fmt.Errorf("%T in a sequence of targets", one.value)
		}
		all = append(all, target)
	}
	t.value = all
	return nil
}

// MarshalJSON writes the pod with its rules.
func (p Pod) MarshalJSON() ([]byte, error) {
	written := pod{Pod: p.Pod, Sides: []side{}}
	for _, s := range p.Sides {
		one := side{Side: s}
		for _, rs := range s.Sets {
			one.Sets = append(one.Sets, writeSet(rs))
		}
		written.Sides = append(written.Sides, one)
	}
	return json.Marshal(written)
}

func writeSet(rs ruleset.RuleSet) set {
	written := set{RuleSet: rs}
	for _, t := range rs.Tables {
		writtenTable := table{Table: t}
		for _, c := range t.Chains {
			writtenChain := chain{Chain: c}
			for _, r := range c.Rules {
				writtenRule := rule{Rule: r}
				for _, m := range r.Matches {
					writtenRule.Matches = append(writtenRule.Matches, tagged{m})
				}
				if r.Target != nil {
					writtenRule.Target = &tagged{r.Target}
				}
				writtenChain.Rules = append(writtenChain.Rules, writtenRule)
			}
			writtenTable.Chains = append(writtenTable.Chains, writtenChain)
		}
		written.Tables = append(written.Tables, writtenTable)
	}
	return written
}

// UnmarshalJSON reads what MarshalJSON writes.
func (p *Pod) UnmarshalJSON(text []byte) error {
	var written pod
	if err := json.Unmarshal(text, &written); err != nil {
		return err
	}
	p.Pod, p.Sides = written.Pod, nil
	for _, s := range written.Sides {
		for _, one := range s.Sets {
			rs, err := one.read()
			if err != nil {
				return err
			}
			s.Side.Sets = append(s.Side.Sets, rs)
		}
		p.Sides = append(p.Sides, s.Side)
	}
	return nil
}

func (s set) read() (ruleset.RuleSet, error) {
	rs := s.RuleSet
	for _, t := range s.Tables {
		for _, c := range t.Chains {
			for _, written := range c.Rules {
				r, err := written.read()
				if err != nil {
					return rs, fmt.Errorf("table %s, chain %s: %w", t.Name, c.Name, err)
				}
				c.Chain.Rules = append(c.Chain.Rules, r)
			}
			t.Table.Chains = append(t.Table.Chains, c.Chain)
		}
		rs.Tables = append(rs.Tables, t.Table)
	}
	return rs, nil
}

func (r rule) read() (ruleset.Rule, error) {
	read := r.Rule
	for _, m := range r.Matches {
		match, is := m.value.(ruleset.Match)
		if !is {
			return read, fmt.Errorf("%T is not a match", m.value)
		}
		read.Matches = append(read.Matches, match)
	}
	if r.Target == nil {
		return read, nil
	}
	target, is := r.Target.value.(ruleset.Target)
	if !is {
		return read, fmt.Errorf("%T is not a target", r.Target.value)
	}
	read.Target = target
	return read, nil
}
