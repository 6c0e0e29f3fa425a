package inject

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/shunt-dev/shunt/inject/strict"
)

// ConfigFields are the fields that the text of a configuration sets, which
// ParseConfig has taken: the paths of all that holds no other fields, such as
// proxyResources.limits.cpu. A list is one field.
func ConfigFields(text []byte) ([]string, error) {
	raw, err := strict.ReadDocument(text, "a mapping")
	if err != nil {
		return nil, err
	}
	var fields []string
	for _, l := range leaves("", raw) {
		if l.path != "apiVersion" && l.path != "kind" {
			fields = append(fields, l.path)
		}
	}
	return fields, nil
}

// leaf is a field that holds no other fields.
type leaf struct{ path, value string }

// leavesOf are those of a value, which marshals as JSON.
func leavesOf(value any) []leaf {
	raw, err := json.Marshal(value)
	if err != nil {
		panic("a configuration always marshals: " + err.Error())
	}
	return leaves("", raw)
}

// leaves are those of a value's JSON, in its order; what is null is none.
func leaves(path string, raw json.RawMessage) []leaf {
	raw = bytes.TrimSpace(raw)
	var text string
	switch {
	case raw[0] == '{':
		return leavesBelow(path, raw)
	case raw[0] == '[':
		return []leaf{{path, listed(raw)}}
	case string(raw) == "null":
		return nil
	case json.Unmarshal(raw, &text) == nil:
		return []leaf{{path, text}}
	default:
		return []leaf{{path, string(raw)}}
	}
}

func leavesBelow(path string, raw json.RawMessage) []leaf {
	var all []leaf
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
		all = append(all, leaves(strings.TrimPrefix(path+"."+key, "."), value)...)
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
