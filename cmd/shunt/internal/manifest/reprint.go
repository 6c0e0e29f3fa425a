package manifest

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/shunt-dev/shunt/inject/podplan"
)

// reprint carries the operations out on the document's nodes and prints them:
// comments and the order of keys stay, blank lines and indentation do not.
func reprint(text []byte, operations []podplan.Operation) ([]byte, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	expand(&document)
	for _, op := range inPlace(operations) {
		if err := applyTo(document.Content[0], op); err != nil {
			return nil, fmt.Errorf("%s %s: %w", op.Op, op.Path, err)
		}
	}
	if IsJSON(text) {
		if err := blockStyle(&document); err != nil {
			return nil, err
		}
	}
	var out bytes.Buffer
	for line := range bytes.Lines(text) {
		if isSeparator(line) {
			out.WriteString("---\n")
			break
		}
	}
	nameNulls(&document, false)
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	encoder.CompactSeqIndent()
	if err := encoder.Encode(&document); err != nil {
		return nil, err
	}
	return out.Bytes(), encoder.Close()
}

// nameNulls writes out each null that flow style leaves out: the printer would
// make empty strings of them.
func nameNulls(node *yaml.Node, flow bool) {
	if flow && node.Value == "" && node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null" {
		node.Value = "null"
	}
	for _, child := range node.Content {
		nameNulls(child, flow || node.Style&yaml.FlowStyle != 0)
	}
}

// blockStyle has nodes that were read from JSON printed as YAML usually is,
// quoted only where that is needed.
func blockStyle(node *yaml.Node) error {
	if len(node.Content) > 0 {
		node.Style &^= yaml.FlowStyle
	}
	if node.Kind == yaml.ScalarNode && node.Style == yaml.DoubleQuotedStyle {
		plain, err := toNode(node.Value)
		if err != nil {
			return err
		}
		node.Style = plain.Style
	}
	for _, child := range node.Content {
		if err := blockStyle(child); err != nil {
			return err
		}
	}
	return nil
}

// applyTo carries out one operation below root.
func applyTo(root *yaml.Node, op swap) error {
	keys := splitPointer(op.Path)
	parent, err := walk(root, keys[:len(keys)-1])
	if err != nil {
		return err
	}
	var value *yaml.Node
	if op.Op != "remove" {
		if value, err = toNode(op.Value); err != nil {
			return err
		}
	}
	last := keys[len(keys)-1]
	if parent.Kind == yaml.SequenceNode {
		return inSequence(parent, op.Op, last, value)
	}
	return inMapping(parent, op, last, value)
}

func inMapping(parent *yaml.Node, op swap, key string, value *yaml.Node) error {
	i, operation := keyIndex(parent, cmp.Or(op.instead, key)), op.Op
	switch {
	case operation == "remove" && i >= 0:
		parent.Content = slices.Delete(parent.Content, i, i+2)
	case operation == "remove":
		return fmt.Errorf("there is no key %q", key)
	case i >= 0:
		renamed := *parent.Content[i] // with its comments
		renamed.Value = key
		parent.Content[i], parent.Content[i+1] = &renamed, value
	default:
		name, err := toNode(key)
		if err != nil {
			return err
		}
		parent.Content = append(parent.Content, name, value)
	}
	return nil
}

func inSequence(parent *yaml.Node, operation, key string, value *yaml.Node) error {
	i, err := elementIndex(key, len(parent.Content))
	if err != nil || i < 0 || i > len(parent.Content) || (operation != "add" && i == len(parent.Content)) {
		return fmt.Errorf("there is no element %q", key)
	}
	if operation == "remove" {
		parent.Content = slices.Delete(parent.Content, i, i+1)
	} else {
		parent.Content = slices.Insert(parent.Content, i, value)
	}
	return nil
}

// expand puts what an alias stands for in its place: what one part of the
// document shares with another must not change there too. Of a key that is there
// twice the last one stays, which counts.
func expand(node *yaml.Node) {
	node.Anchor = ""
	keepLast(node)
	for i, child := range node.Content {
		if child.Kind == yaml.AliasNode {
			node.Content[i] = clone(child.Alias)
		}
		expand(node.Content[i])
	}
}

// keepLast takes keys out of a mapping that are there once more below.
func keepLast(node *yaml.Node) {
	if node.Kind != yaml.MappingNode {
		return
	}
	var kept []*yaml.Node
	again := map[string]bool{}
	for i := len(node.Content) - 2; i >= 0; i -= 2 {
		key := node.Content[i]
		if key.Kind == yaml.ScalarNode && key.ShortTag() != "!!merge" {
			if again[key.Value] {
				continue
			}
			again[key.Value] = true
		}
		kept = append(kept, node.Content[i+1], key)
	}
	slices.Reverse(kept)
	node.Content = kept
}

// walk follows the keys.
func walk(node *yaml.Node, keys []string) (*yaml.Node, error) {
	for _, key := range keys {
		place := -1
		if node.Kind == yaml.SequenceNode {
			if i, err := strconv.Atoi(key); err == nil && i >= 0 && i < len(node.Content) {
				place = i
			}
		} else if i := keyIndex(node, key); i >= 0 {
			place = i + 1
		}
		if place < 0 {
			return nil, fmt.Errorf("there is no %q", key)
		}
		node = node.Content[place]
	}
	return node, nil
}

// keyIndex returns the place of a key in a mapping, or -1. A mapping that has
// the key by a merge (<<) is first given all that it merges.
func keyIndex(mapping *yaml.Node, key string) int {
	find := func(key string) int {
		for i := 0; i+1 < len(mapping.Content); i += 2 {
			if mapping.Content[i].Value == key {
				return i
			}
		}
		return -1
	}
	i := find(key)
	merge := find("<<")
	if i >= 0 || merge < 0 || mapping.Content[merge].ShortTag() != "!!merge" {
		return i
	}
	sources := []*yaml.Node{mapping.Content[merge+1]}
	if sources[0].Kind == yaml.SequenceNode {
		sources = sources[0].Content
	}
	mapping.Content = slices.Delete(mapping.Content, merge, merge+2)
	for _, source := range sources {
		keyIndex(source, key) // what it merges itself
		for j := 0; j+1 < len(source.Content); j += 2 {
			if find(source.Content[j].Value) < 0 {
				mapping.Content = append(mapping.Content, source.Content[j], source.Content[j+1])
			}
		}
	}
	return find(key)
}

func clone(node *yaml.Node) *yaml.Node {
	copied := *node
	copied.Content = nil
	for _, child := range node.Content {
		copied.Content = append(copied.Content, clone(child))
	}
	return &copied
}

// toNode is a value as Kubernetes' own YAML printer would write it: it quotes
// what older YAML takes for a truth value or a number.
func toNode(value any) (*yaml.Node, error) {
	text, err := sigsyaml.Marshal(value)
	if err != nil {
		return nil, err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	return document.Content[0], nil
}
