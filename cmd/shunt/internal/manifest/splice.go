package manifest

import (
	"bytes"
	"cmp"
	"path"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/shunt-dev/shunt/inject/podplan"
)

// splicer works out which lines of one document change.
type splicer struct {
	root  *yaml.Node
	lines []string
	// elements are those of the sequences that operations have changed, as
	// they are by now; nil for one that is new.
	elements map[*yaml.Node][]*yaml.Node
	edits    []edit
}

// edit puts text in the place of some lines, or of none.
type edit struct {
	line int // the first of them, from 0
	cut  int // how many
	text string
	// behind says that the text belongs to what stands before the line, so
	// many columns in.
	behind bool
	indent int
}

// splice carries out operations by putting lines in and taking lines out. It
// reports false where it cannot: flow style, aliases, a key that is the first
// of a list's element.
func splice(doc Document, operations []podplan.Operation) ([]byte, bool) {
	node, err := doc.node()
	if err != nil || IsJSON(doc.Text) || bytes.ContainsRune(doc.Text, '\r') {
		return nil, false
	}
	whole, ended := strings.CutSuffix(string(doc.Text), "\n")
	s := splicer{root: node.Content[0], lines: strings.SplitAfter(whole+"\n", "\n"), elements: map[*yaml.Node][]*yaml.Node{}}
	for _, op := range inPlace(operations) {
		if !s.plan(op) {
			return nil, false
		}
	}
	spliced, ok := s.carryOut()
	if !ended {
		spliced = strings.TrimSuffix(spliced, "\n")
	}
	return []byte(spliced), ok
}

// swap is an operation on a key. One that adds a key to a mapping goes in the
// place of the key that it takes over from.
type swap struct {
	podplan.Operation

	instead string
}

// inPlace pairs what is taken out of a mapping with what is added to it: the
// same key, or another one right behind, as a probe's.
func inPlace(operations []podplan.Operation) []swap {
	removed := map[string]int{}
	all := make([]swap, len(operations))
	paired := map[int]bool{}
	for i, op := range operations {
		all[i].Operation = op
		keys := splitPointer(op.Path)
		if _, err := elementIndex(keys[len(keys)-1], 0); err == nil {
			continue
		}
		if op.Op == "remove" {
			removed[op.Path] = i
			continue
		}
		taken, again := removed[op.Path]
		if !again && i > 0 && operations[i-1].Op == "remove" && path.Dir(operations[i-1].Path) == path.Dir(op.Path) {
			taken, again = removed[operations[i-1].Path]
		}
		if again && op.Op == "add" && !paired[taken] {
			instead := splitPointer(operations[taken].Path)
			all[i].instead = instead[len(instead)-1]
			paired[taken] = true
		}
	}
	kept := all[:0]
	for i, op := range all {
		if !paired[i] {
			kept = append(kept, op)
		}
	}
	return kept
}

// carryOut makes the edits. It reports false where two of them overlap.
func (s *splicer) carryOut() (string, bool) {
	slices.SortStableFunc(s.edits, func(a, b edit) int {
		if a.line != b.line {
			return a.line - b.line
		}
		// What belongs to the lines above goes first, the innermost before
		// all; then what is put in, then what is taken out.
		if a.behind != b.behind {
			return map[bool]int{true: -1, false: 1}[a.behind]
		}
		if a.behind {
			return b.indent - a.indent
		}
		return cmp.Compare(a.cut, b.cut)
	})
	var out strings.Builder
	at := 0
	for _, e := range s.edits {
		if e.line < at {
			return "", false
		}
		out.WriteString(strings.Join(s.lines[at:e.line], "") + e.text)
		at = e.line + e.cut
	}
	return out.String() + strings.Join(s.lines[at:], ""), true
}

// plan adds the edits of one operation.
func (s *splicer) plan(op swap) bool {
	keys := splitPointer(op.Path)
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
		return s.planKey(parent, op, last)
	case yaml.SequenceNode:
		return s.planElement(parent, op.Op, last, op.Value)
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
		if i := plainKey(node, key); i >= 0 {
			return node.Content[i+1]
		}
	case yaml.SequenceNode:
		elements := s.list(node)
		if i, err := strconv.Atoi(key); err == nil && 0 <= i && i < len(elements) {
			return elements[i]
		}
	}
	return nil
}

// plainKey is the place of a key that the mapping itself has, or -1; of one that
// is there twice, the last, which counts.
func plainKey(mapping *yaml.Node, key string) int {
	for i := len(mapping.Content) - 2; i >= 0; i -= 2 {
		if mapping.Content[i].Value == key {
			return i
		}
	}
	return -1
}

// list is what a sequence has by now.
func (s *splicer) list(sequence *yaml.Node) []*yaml.Node {
	if elements, changed := s.elements[sequence]; changed {
		return elements
	}
	return sequence.Content
}

func (s *splicer) planKey(mapping *yaml.Node, op swap, key string) bool {
	i := plainKey(mapping, cmp.Or(op.instead, key))
	if i < 0 {
		return op.Op == "add" && op.instead == "" && s.addKey(mapping, key, op.Value)
	}
	node, old := mapping.Content[i], mapping.Content[i+1]
	if !s.startsLine(node) {
		return false
	}
	// A list may stand in the column of its key.
	beside := old.Kind == yaml.SequenceNode && old.Column == node.Column
	change := edit{line: node.Line - 1}
	change.cut = s.extent(change.line, node.Column-1, beside, map[string]*yaml.Node{node.Value: old})
	if op.Op == "remove" {
		s.edits = append(s.edits, change)
		return true
	}
	var ok bool
	change.text, ok = block(node.Column-1, map[string]any{key: op.Value})
	s.edits = append(s.edits, change)
	return ok
}

// addKey puts a key before another of its mapping: what holds containers
// reads best with the new lists beside them.
func (s *splicer) addKey(mapping *yaml.Node, key string, value any) bool {
	before := -1
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		sibling := mapping.Content[i]
		if s.startsLine(sibling) && (before < 0 || sibling.Value == "containers") {
			before = i
		}
	}
	if before < 0 {
		return false
	}
	return s.insert(mapping.Content[before], before == 0, map[string]any{key: value})
}

func (s *splicer) planElement(sequence *yaml.Node, operation, index string, value any) bool {
	elements := slices.Clone(s.list(sequence))
	i, err := elementIndex(index, len(elements))
	if err != nil || i < 0 || i > len(elements) || (i == len(elements) && operation != "add") {
		return false
	}
	column := sequence.Column - 1
	switch {
	case operation == "remove":
		old := elements[i]
		if old == nil || !s.startsElement(old, column) {
			return false
		}
		change := edit{line: old.Line - 1}
		change.cut = s.extent(change.line, column, false, []*yaml.Node{old})
		s.elements[sequence], s.edits = slices.Delete(elements, i, i+1), append(s.edits, change)
		return true
	case i == len(elements):
		s.elements[sequence] = append(elements, nil)
		return s.appendElement(sequence, value)
	case !slices.ContainsFunc(elements[:i], func(element *yaml.Node) bool { return element != nil }): // before what is left
		s.elements[sequence] = slices.Insert(elements, i, nil)
		return s.insert(sequence, true, []any{value})
	default:
		return false // between two: whose the comments there are is not known
	}
}

// appendElement puts an element behind the last that the document has.
func (s *splicer) appendElement(sequence *yaml.Node, value any) bool {
	last, column := sequence.Content[len(sequence.Content)-1], sequence.Column-1
	if !s.startsElement(last, column) {
		return false
	}
	text, ok := block(column, []any{value})
	line := last.Line - 1
	line += s.extent(line, column, false, nil)
	s.edits = append(s.edits, edit{line: line, text: text, behind: true, indent: column})
	return ok
}

// insert puts lines at the column of a node before the line that it starts,
// or before the comments above it where it is the first of its collection.
func (s *splicer) insert(node *yaml.Node, first bool, value any) bool {
	if !s.startsLine(node) {
		return false
	}
	line := node.Line - 1
	for line > 0 && strings.HasPrefix(strings.TrimSpace(s.lines[line-1]), "#") && (first || s.indent(line-1) == node.Column-1) {
		line--
	}
	text, ok := block(node.Column-1, value)
	s.edits = append(s.edits, edit{line: line, text: text})
	return ok
}

// block is a value as lines that are indented.
func block(indent int, value any) (string, bool) {
	text, err := sigsyaml.Marshal(value)
	if err != nil {
		return "", false
	}
	var lines strings.Builder
	for line := range strings.Lines(string(text)) {
		lines.WriteString(strings.Repeat(" ", indent) + line)
	}
	return lines.String(), true
}

// extent is how many lines an entry has that begins at a line, indented so
// far. One that is there just as block prints it, with the old nodes, ends
// where that does. Of any other the lines count that are indented further,
// and comments among them; those in its own column that begin with a dash,
// where a list may stand there.
func (s *splicer) extent(line, indent int, beside bool, old any) int {
	if text, ok := printed(indent, old); ok {
		lines := slices.Collect(strings.Lines(text))
		if line+len(lines) <= len(s.lines) && slices.Equal(s.lines[line:line+len(lines)], lines) {
			return len(lines)
		}
	}
	end, remark := line+1, false
	for i := line + 1; i < len(s.lines); i++ {
		text := strings.TrimSpace(s.lines[i])
		further := s.indent(i) > indent
		switch {
		case text == "":
		case text[0] == '#' && !further:
			remark = true // of what comes next, unless the entry goes on
		case text[0] == '#':
			if !remark {
				end = i + 1
			}
		case further, beside && s.indent(i) == indent && (text == "-" || strings.HasPrefix(text, "- ")):
			end, remark = i+1, false
		default:
			return end - line
		}
	}
	return end - line
}

// printed is what block makes of nodes.
func printed(indent int, old any) (string, bool) {
	if old == nil {
		return "", false
	}
	text, err := yaml.Marshal(old)
	if err != nil {
		return "", false
	}
	var value any
	if err := sigsyaml.Unmarshal(text, &value); err != nil {
		return "", false
	}
	return block(indent, value)
}

func (s *splicer) startsLine(node *yaml.Node) bool {
	return s.indent(node.Line-1) == node.Column-1
}

// startsElement reports whether the line of an element is that of its dash,
// in the given column, from 0.
func (s *splicer) startsElement(element *yaml.Node, dash int) bool {
	return s.indent(element.Line-1) == dash && strings.HasPrefix(s.lines[element.Line-1][dash:], "- ")
}

func (s *splicer) indent(line int) int {
	return len(s.lines[line]) - len(strings.TrimLeft(s.lines[line], " "))
}
