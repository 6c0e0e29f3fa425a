package config

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/shunt-dev/shunt/inject/strict"
)

// Fields are the fields that the text of a configuration sets, which
// ParseConfig has taken: the paths of all that holds no other fields, such as
// proxyResources.limits.cpu. A list is one field.
func Fields(text []byte) ([]string, error) {
	raw, err := strict.ReadDocument(text, "a mapping")
	if err != nil {
		return nil, err
	}
	var fields []string
	for _, l := range leavesAt("", raw) {
		if l.Path != "apiVersion" && l.Path != "kind" {
			fields = append(fields, l.Path)
		}
	}
	return fields, nil
}

// Leaf is a field that holds no other fields.
type Leaf struct{ Path, Value string }

// Leaves are those of a value, which marshals as JSON.
func Leaves(value any) []Leaf {
	raw, err := json.Marshal(value)
	if err != nil {
		panic("a configuration always marshals: " + err.Error())
	}
	return leavesAt("", raw)
}

// leavesAt are those of a value's JSON, in its order; what is null is none.
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
		t, err := decoder.Token()
		if err != nil {
			panic("JSON that was read before: " + err.Error())
		}
		return t
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

// listed is a list on one line: words as they are, anything else as JSON.
func listed(raw json.RawMessage) string {
	var words []string
	if err := json.Unmarshal(raw, &words); err == nil {
		return strings.Join(words, ",")
	}
	return string(raw)
}
