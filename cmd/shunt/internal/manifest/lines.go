package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"
)

// lineInError finds the line that a YAML library's error names.
var lineInError = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?`)

// textFollows is wrong with a text that has a second document behind the first.
const textFollows = "text follows its end; accepted: documents with a line --- between them"

// unreadable says why the document cannot be read, on one line, with the line of
// the file.
func (d *Document) unreadable(err error) error {
	// Of a text that is wrong inside a mapping, the reader that keeps nodes names
	// the line that this begins in, the other one where it goes wrong.
	if _, better := sigsyaml.YAMLToJSON(d.Text); better != nil && strings.HasPrefix(err.Error(), "yaml: ") {
		err = errors.Unwrap(better)
		if err == nil {
			err = better
		}
	}
	text := strings.Join(strings.Fields(err.Error()), " ")
	found := lineInError.FindStringSubmatch(text)
	text = strings.TrimPrefix(text, found[0])
	line, _ := strconv.Atoi(found[1])
	if line == 0 || strings.HasPrefix(text, "did not find expected") {
		line++ // the libraries' parsers count from 0, their scanners from 1
	}
	if text == "did not find expected <document start>" {
		text = textFollows
	}
	if strings.HasPrefix(text, "invalid map key") {
		text = "a key that is not a string"
		if key := keyOfMap(d.root); key != nil {
			line = key.Line
		}
	}
	place := fmt.Sprintf("line %d: ", d.above+line)
	if strings.HasPrefix(text, "unknown anchor") {
		place = "" // which it is said without
	}
	text = place + "not readable as YAML: " + text
	if line, action, is := d.template(); is {
		text += fmt.Sprintf("; line %d, %s, looks like a template: render it first, as with helm template", line, action)
	}
	return fmt.Errorf("%s: document %d: %s", d.File, d.Number, text)
}

// longestAction is how much of a template's action is quoted.
const longestAction = 60

// template finds the first line that has an action of Go's templates, {{ … }}.
func (d *Document) template() (line int, action string, is bool) {
	start := bytes.Index(d.Text, []byte("{{"))
	if start < 0 {
		return 0, "", false
	}
	line = d.above + 1 + bytes.Count(d.Text[:start], []byte("\n"))
	text, _, _ := strings.Cut(string(d.Text[start:]), "\n")
	if end := strings.Index(text, "}}"); end >= 0 {
		text = text[:end+len("}}")]
	}
	if len(text) > longestAction {
		text = strings.ToValidUTF8(text[:longestAction], "") + "…"
	}
	return line, strings.TrimSpace(text), true
}

// keyOfMap finds a key that is no scalar, which JSON has none of.
func keyOfMap(node *yaml.Node) *yaml.Node {
	if node == nil {
		return nil
	}
	for i, child := range node.Content {
		if node.Kind == yaml.MappingNode && i%2 == 0 && child.Kind != yaml.ScalarNode && child.Kind != yaml.AliasNode {
			return child
		}
		if key := keyOfMap(child); key != nil {
			return key
		}
	}
	return nil
}

// duplicates finds the keys that their mapping has twice. The merge key << may
// be there more than once.
func duplicates(node *yaml.Node) []*yaml.Node {
	var again []*yaml.Node
	seen := map[string]bool{}
	for i, child := range node.Content {
		if node.Kind == yaml.MappingNode && i%2 == 0 && child.Kind == yaml.ScalarNode && child.ShortTag() != "!!merge" {
			if seen[child.Value] {
				again = append(again, child)
			}
			seen[child.Value] = true
		}
		again = append(again, duplicates(child)...)
	}
	return again
}

// at is the node behind a key of a mapping or an index of a sequence; nil where
// there is none. Aliases and merges are followed. Of a key that is there twice
// the last one counts.
func at(node *yaml.Node, key string) *yaml.Node {
	for node != nil && node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node == nil {
		return nil
	}
	if node.Kind == yaml.SequenceNode {
		i, err := strconv.Atoi(key)
		if err != nil || i < 0 || i >= len(node.Content) {
			return nil
		}
		return node.Content[i]
	}
	if node.Kind != yaml.MappingNode {
		return nil
	}
	var merged *yaml.Node
	for i := len(node.Content) - 2; i >= 0; i -= 2 {
		name, value := node.Content[i], node.Content[i+1]
		if name.Value == key {
			return value
		}
		if name.ShortTag() == "!!merge" && merged == nil {
			merged = mergedAt(value, key)
		}
	}
	return merged
}

// mergedAt is at in what a mapping merges, one mapping or a list of them.
func mergedAt(sources *yaml.Node, key string) *yaml.Node {
	if sources.Kind != yaml.SequenceNode {
		return at(sources, key)
	}
	for _, source := range sources.Content {
		if value := at(source, key); value != nil {
			return value
		}
	}
	return nil
}

// descendTo follows keys from the document's root as far as they lead. The line
// is that of the last value found, in the file.
func (d *Document) descendTo(keys []string) (node *yaml.Node, line int) {
	root, err := d.node()
	if err != nil || len(root.Content) == 0 {
		return nil, d.above + 1
	}
	node, line = root.Content[0], d.above+root.Content[0].Line
	for _, key := range keys {
		if node = at(node, key); node == nil {
			return nil, line
		}
		line = d.above + node.Line
	}
	return node, line
}

// fieldKeys takes a field's path as messages have it, such as
// spec.containers[0].name or metadata.annotations[a.b/c], apart.
func fieldKeys(path string) []string {
	var keys []string
	for path != "" {
		end := strings.IndexAny(path, ".[")
		switch {
		case end < 0:
			return append(keys, path)
		case path[end] == '[' && end == 0:
			key, rest, _ := strings.Cut(path[1:], "]")
			keys, path = append(keys, key), rest
		case end == 0:
			path = path[1:]
		default:
			keys, path = append(keys, path[:end]), path[end:]
		}
	}
	return keys
}
