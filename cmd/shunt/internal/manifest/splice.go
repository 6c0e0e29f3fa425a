package manifest

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"gomodules.xyz/jsonpatch/v2"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/shunt-dev/shunt/webhook/patch"
)

// insertion is text for the place before a line.
type insertion struct {
	line int // from 0
	text string
}

// splicer works out where the new lines of one document go.
type splicer struct {
	root  *yaml.Node
	lines []string
	// added counts, by sequence, the elements put in so far: indices of
	// operations count them, the document's nodes do not.
	added map[*yaml.Node]int
	all   []insertion
}

// splice carries out operations that add something by inserting lines. It
// reports false where it cannot: other operations, flow style, aliases.
func splice(text []byte, operations []jsonpatch.Operation) ([]byte, bool) {
	var document yaml.Node
	if IsJSON(text) || bytes.ContainsRune(text, '\r') || yaml.Unmarshal(text, &document) != nil {
		return nil, false
	}
	s := splicer{root: document.Content[0], lines: strings.SplitAfter(string(text), "\n"), added: map[*yaml.Node]int{}}
	for _, op := range operations {
		if op.Operation != "add" || !s.add(patch.Split(op.Path), op.Value) {
			return nil, false
		}
	}
	slices.SortStableFunc(s.all, func(a, b insertion) int { return b.line - a.line })
	for i := 0; i < len(s.all); {
		// Insertions at one place keep their order.
		line, block := s.all[i].line, ""
		for ; i < len(s.all) && s.all[i].line == line; i++ {
			block += s.all[i].text
		}
		s.lines = slices.Insert(s.lines, line, block)
	}
	return []byte(strings.Join(s.lines, "")), true
}

func (s *splicer) add(keys []string, value any) bool {
	parent := s.root
	for _, key := range keys[:len(keys)-1] {
		if parent = s.child(parent, key); parent == nil {
			return false
		}
	}
	if parent.Style&yaml.FlowStyle != 0 || len(parent.Content) == 0 || parent.Anchor != "" {
		return false
	}
	last := keys[len(keys)-1]
	switch parent.Kind {
	case yaml.MappingNode:
		return s.addKey(parent, last, value)
	case yaml.SequenceNode:
		return s.addElement(parent, last, value)
	}
	return false
}

// child is the node behind a key; nil where it is not plainly there.
func (s *splicer) child(node *yaml.Node, key string) *yaml.Node {
	if node.Anchor != "" {
		return nil
	}
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == key {
				return node.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(key); err == nil && i-s.added[node] >= 0 && i-s.added[node] < len(node.Content) {
			return node.Content[i-s.added[node]]
		}
	}
	return nil
}

// addKey puts a key before another of its mapping: what holds containers
// reads best with the new lists beside them.
func (s *splicer) addKey(parent *yaml.Node, key string, value any) bool {
	before := -1
	for i := 0; i+1 < len(parent.Content); i += 2 {
		sibling := parent.Content[i]
		if sibling.Value == key {
			return false
		}
		if s.startsLine(sibling) && (before < 0 || sibling.Value == "containers") {
			before = i
		}
	}
	if before < 0 {
		return false
	}
	sibling := parent.Content[before]
	return s.insert(sibling, before == 0, map[string]any{key: value})
}

// addElement puts an element in front of an old one.
func (s *splicer) addElement(parent *yaml.Node, index string, value any) bool {
	i, err := strconv.Atoi(index)
	if err != nil || i-s.added[parent] != 0 {
		return false // a place whose first line the nodes do not tell
	}
	s.added[parent]++
	return s.insert(parent, true, []any{value})
}

// insert puts lines at the column of a node before the line that it starts,
// or before the comments above it where it is the first of its collection.
func (s *splicer) insert(node *yaml.Node, first bool, value any) bool {
	if !s.startsLine(node) {
		return false
	}
	text, err := sigsyaml.Marshal(value)
	if err != nil {
		return false
	}
	line := node.Line - 1
	for line > 0 && strings.HasPrefix(strings.TrimSpace(s.lines[line-1]), "#") && (first || s.indent(line-1) == node.Column-1) {
		line--
	}
	var block strings.Builder
	for added := range strings.Lines(string(text)) {
		block.WriteString(strings.Repeat(" ", node.Column-1) + added)
	}
	s.all = append(s.all, insertion{line, block.String()})
	return true
}

func (s *splicer) startsLine(node *yaml.Node) bool {
	return s.indent(node.Line-1) == node.Column-1
}

func (s *splicer) indent(line int) int {
	return len(s.lines[line]) - len(strings.TrimLeft(s.lines[line], " "))
}
