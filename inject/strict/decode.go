package strict

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	yamlnode "go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// ReadDocument returns the JSON of a text with one YAML document. accepted
// describes the document in errors. A duplicate key is an error.
func ReadDocument(text []byte, accepted string) ([]byte, error) {
	decoder := yamlnode.NewDecoder(bytes.NewReader(text))
	var first, second yamlnode.Node
	if err := decoder.Decode(&first); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("line %d: a second document; accepted: one", second.Line)
	}
	if len(first.Content) > 0 && first.Content[0].Kind != yamlnode.MappingNode {
		return nil, fmt.Errorf("line %d: accepted: %s", first.Content[0].Line, accepted)
	}
	var repeated Faults
	repeated.duplicates(nil, &first)
	if err := repeated.Aggregate(); err != nil {
		return nil, err
	}
	return yaml.YAMLToJSON(text)
}

// duplicates finds duplicate keys. A decoder would take the last one, or report a
// line and no path.
func (f *Faults) duplicates(path *field.Path, node *yamlnode.Node) {
	switch node.Kind {
	case yamlnode.DocumentNode:
		for _, child := range node.Content {
			f.duplicates(path, child)
		}
	case yamlnode.SequenceNode:
		for i, child := range node.Content {
			f.duplicates(path.Index(i), child)
		}
	case yamlnode.MappingNode:
		seen := map[string]bool{}
		for i := 0; i+1 < len(node.Content); i += 2 {
			key := node.Content[i]
			below := path.Child(key.Value)
			if seen[key.Value] {
				f.Add(func() *field.Error {
					return field.Forbidden(below, fmt.Sprintf("there again in line %d; accepted: once", key.Line))
				})
			}
			seen[key.Value] = true
			f.duplicates(below, node.Content[i+1])
		}
	}
}

// JSONNames returns the fields of a struct by their names in JSON.
func JSONNames[T any]() []string {
	var names []string
	for f := range reflect.TypeFor[T]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// longestName is the longest name, in bytes, for which UnknownField suggests a
// similar one.
const longestName = 63

// UnknownField describes an unknown field, with a similar one and the accepted
// ones. No accepted ones means a field of a Kubernetes type.
func UnknownField(name string, accepted []string) string {
	if len(accepted) == 0 {
		return "unknown field; accepted: what Kubernetes has there"
	}
	likeness := func(other string) int { return Distance(strings.ToLower(name), strings.ToLower(other)) }
	text := "unknown field"
	if len(name) <= longestName {
		near := slices.MinFunc(accepted, func(a, b string) int { return likeness(a) - likeness(b) })
		if likeness(near) <= len(name)/3 {
			text += ", did you mean " + near + "?"
		}
	}
	return text + "; accepted: " + strings.Join(accepted, ", ")
}

// Distance returns the Levenshtein distance: how many bytes have to be inserted,
// deleted or replaced to turn one text into the other.
func Distance(a, b string) int {
	row := make([]int, len(b)+1) // from a[:i] to each b[:j]
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			changed := diagonal
			if a[i] != b[j] {
				changed++
			}
			diagonal = row[j+1]
			row[j+1] = min(changed, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
