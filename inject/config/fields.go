package config

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/shunt-dev/shunt/inject/strict"
)

// Fields returns the paths of the fields that a valid configuration sets, such as
// proxyResources.limits.cpu. Only fields without fields of their own count, and a
// list is one field.
func Fields(text []byte) ([]string, error) {
	raw, err := strict.ReadDocument(text, "a mapping")
	if err != nil {
		return nil, err
	}
	var fields []string
	for _, leaf := range leavesAt("", raw) {
		if leaf.Path != "apiVersion" && leaf.Path != "kind" {
			fields = append(fields, leaf.Path)
		}
	}
	return fields, nil
}

// Leaf is a field without fields of its own.
type Leaf struct{ Path, Value string }

// Leaves returns the leaves of a value, which must marshal as JSON.
func Leaves(value any) []Leaf {
	raw, err := json.Marshal(value)
	if err != nil {
		panic("a configuration always marshals: " + err.Error())
	}
	return leavesAt("", raw)
}

// leavesAt returns the leaves of a JSON value in its order, without those that are
// null.
func leavesAt(path string, raw json.RawMessage) []Leaf {
	raw = bytes.TrimSpace(raw)
	var text string
	switch {
	case raw[0] == '{':
		return leavesBelow(path, raw)
	case raw[0] == '[':
		return []Leaf{{path, listed(raw)}}
	case string(raw) == "null":
		return nil
	case json.Unmarshal(raw, &text) == nil:
		return []Leaf{{path, text}}
	default:
		return []Leaf{{path, string(raw)}}
	}
}

func leavesBelow(path string, raw json.RawMessage) []Leaf {
	var all []Leaf
	decoder := json.NewDecoder(bytes.NewReader(raw))
	token := func() json.Token {
		next, err := decoder.Token()
		if err != nil {
			panic("JSON that was read before: " + err.Error())
		}
		return next
	}
	for token(); decoder.More(); {
		key, _ := token().(string)
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			panic("JSON that was read before: " + err.Error())
		}
		all = append(all, leavesAt(strings.TrimPrefix(path+"."+key, "."), value)...)
	}
	return all
}

// listed returns a list on one line: strings separated by commas, anything else as
// JSON.
func listed(raw json.RawMessage) string {
	var items []string
	if err := json.Unmarshal(raw, &items); err == nil {
		return strings.Join(items, ",")
	}
	return string(raw)
}
