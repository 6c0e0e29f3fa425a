package ruleset

import (
	"encoding/json"
	"fmt"
	"reflect"
)

// kinds are the types of matches and targets, by the names that JSON has for them.
var kinds = kindsOf(
	Source{}, Destination{}, InInterface{}, OutInterface{}, Protocol{}, Ports{}, SYN{}, Owner{}, Mark{}, SocketMark{},
	Conntrack{}, AddressType{}, OpaqueMatch{}, Verdict(""), Reject{}, Jump{}, Redirect{}, DNAT{}, Nowhere{}, TProxy{}, SetMark{},
	SaveMark{}, RestoreMark{}, NoTrack{}, ConntrackZone{}, OpaqueTarget{},
)

func kindsOf(examples ...any) map[string]reflect.Type {
	byName := map[string]reflect.Type{}
	for _, example := range examples {
		kind := reflect.TypeOf(example)
		byName[kind.Name()] = kind
	}
	return byName
}

// ruleJSON is a rule as JSON has it: each match, and each target, is an object with
// one member, named as its type.
type ruleJSON struct {
	Matches []map[string]json.RawMessage `json:"matches,omitempty"`
	Targets []map[string]json.RawMessage `json:"targets,omitempty"`
	Comment string                       `json:"comment,omitempty"`
	Packets *uint64                      `json:"packets,omitempty"`
}

// MarshalJSON writes the rule so that UnmarshalJSON reads it.
func (r Rule) MarshalJSON() ([]byte, error) {
	written := ruleJSON{Comment: r.Comment, Packets: r.Packets}
	for _, m := range r.Matches {
		one, err := tagged(m)
		if err != nil {
			return nil, err
		}
		written.Matches = append(written.Matches, one)
	}
	targets := []Target{r.Target}
	switch target := r.Target.(type) {
	case nil:
		targets = nil
	case Sequence:
		targets = target
	}
	for _, t := range targets {
		one, err := tagged(t)
		if err != nil {
			return nil, err
		}
		written.Targets = append(written.Targets, one)
	}
	return json.Marshal(written)
}

// tagged writes a match or target under the name of its type.
func tagged(value any) (map[string]json.RawMessage, error) {
	name := reflect.TypeOf(value).Name()
	if kinds[name] == nil {
		return nil, fmt.Errorf("a rule has a %T, which JSON has no name for", value)
	}
	text, err := json.Marshal(value)
	return map[string]json.RawMessage{name: text}, err
}

// UnmarshalJSON reads what MarshalJSON writes.
func (r *Rule) UnmarshalJSON(text []byte) error {
	var written ruleJSON
	if err := json.Unmarshal(text, &written); err != nil {
		return err
	}
	read := Rule{Comment: written.Comment, Packets: written.Packets}
	for _, one := range written.Matches {
		value, err := untagged[Match](one)
		if err != nil {
			return err
		}
		read.Matches = append(read.Matches, value)
	}
	var targets Sequence
	for _, one := range written.Targets {
		value, err := untagged[Target](one)
		if err != nil {
			return err
		}
		targets = append(targets, value)
	}
	switch len(targets) {
	case 0:
	case 1:
		read.Target = targets[0]
	default:
		read.Target = targets
	}
	*r = read
	return nil
}

// untagged reads what tagged writes.
func untagged[T any](one map[string]json.RawMessage) (result T, err error) {
	if len(one) != 1 {
		return result, fmt.Errorf("%d types of a match or target; accepted: 1", len(one))
	}
	for name, text := range one {
		kind := kinds[name]
		if kind == nil {
			return result, fmt.Errorf("no match or target is called %q", name)
		}
		value := reflect.New(kind)
		if err := json.Unmarshal(text, value.Interface()); err != nil {
			return result, fmt.Errorf("%s: %w", name, err)
		}
		known, is := value.Elem().Interface().(T)
		if !is {
			return result, fmt.Errorf("%q stands where another kind is wanted", name)
		}
		result = known
	}
	return result, nil
}
