package bootstrap

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// minFolded is the least length, in bytes, that is worth an anchor.
const minFolded = 24

// fold prints JSON as YAML in which every object, array and long string that
// stands there more than once is written out where it stands first, and
// referred to after. Keys are sorted.
func fold(text []byte) (string, error) {
	var value any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		return "", fmt.Errorf("fold the bootstrap: %w", err)
	}
	f := folder{count: map[string]int{}, anchors: map[string]string{}}
	tree := newNode(value)
	f.survey(tree)
	f.print(tree)
	return f.out.String(), nil
}

// node is a JSON value.
type node struct {
	text   string   // all of it, as JSON
	names  []string // of the fields, with their quotation marks, where it is an object
	parts  []node   // the fields' values or the elements
	opens  string   // the bracket that it begins with, if any
	closes string
}

func newNode(value any) node {
	var n node
	switch value := value.(type) {
	case map[string]any:
		n.opens, n.closes = "{", "}"
		for _, name := range slices.Sorted(maps.Keys(value)) {
			n.names = append(n.names, encode(name)+":")
			n.parts = append(n.parts, newNode(value[name]))
		}
	case []any:
		n.opens, n.closes = "[", "]"
		for _, element := range value {
			n.parts = append(n.parts, newNode(element))
		}
	default:
		n.text = encode(value)
		return n
	}
	var out strings.Builder
	n.printParts(&out, func(part node) { out.WriteString(part.text) })
	n.text = out.String()
	return n
}

func (n node) printParts(out *strings.Builder, part func(node)) {
	out.WriteString(n.opens)
	for i := range n.parts {
		if i > 0 {
			out.WriteByte(',')
		}
		if n.names != nil {
			out.WriteString(n.names[i])
		}
		part(n.parts[i])
	}
	out.WriteString(n.closes)
}

// encode prints a string, number, bool or null.
func encode(value any) string {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic("a decoded value always encodes: " + err.Error())
	}
	return strings.TrimSuffix(text.String(), "\n")
}

type folder struct {
	count   map[string]int    // by a node's text, how often it would be printed
	anchors map[string]string // by a node's text, its anchor, once it is printed
	out     strings.Builder
}

// survey counts the nodes. What is in one that was met before does not count
// again, because it will not be printed again.
func (f *folder) survey(n node) {
	f.count[n.text]++
	if f.count[n.text] > 1 && len(n.text) >= minFolded {
		return
	}
	for _, part := range n.parts {
		f.survey(part)
	}
}

func (f *folder) print(n node) {
	if anchor, known := f.anchors[n.text]; known {
		f.out.WriteString("*" + anchor)
		return
	}
	if f.count[n.text] > 1 && len(n.text) >= minFolded {
		anchor := fmt.Sprintf("a%d", len(f.anchors))
		f.anchors[n.text] = anchor
		f.out.WriteString("&" + anchor + " ")
	}
	if n.opens == "" {
		f.out.WriteString(n.text)
		return
	}
	n.printParts(&f.out, f.print)
}
