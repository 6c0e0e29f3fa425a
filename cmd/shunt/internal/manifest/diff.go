package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"go.yaml.in/yaml/v3"
)

// contextLines is how many lines diff(1) shows around a change.
const contextLines = 3

// Diff is a unified diff of a file's documents, as they were and as they are,
// and have become in a word; empty where nothing changed. It applies to the file
// with patch(1): what was JSON stays JSON in it.
func Diff(file, become string, before, after []Document) ([]byte, error) {
	var content strings.Builder
	var edits []udiff.Edit
	for i := range before {
		from, to := before[i].Text, after[i].Text
		if !bytes.Equal(from, to) && json.Valid(from) {
			var err error
			if to, err = after[i].jsonLike(from); err != nil {
				return nil, err
			}
		}
		// Document by document: equal lines of two are not to be taken for
		// each other.
		for _, edit := range udiff.Lines(string(from), string(to)) {
			edits = append(edits, udiff.Edit{Start: edit.Start + content.Len(), End: edit.End + content.Len(), New: edit.New})
		}
		content.Write(from)
	}
	if len(edits) == 0 {
		return nil, nil
	}
	text, err := udiff.ToUnified(file, file+" ("+become+")", content.String(), edits, contextLines)
	return []byte(text), err
}

// jsonLike is the document as JSON, its keys in their order, indented as the
// JSON that it was.
func (d *Document) jsonLike(was []byte) ([]byte, error) {
	node, err := d.node()
	if err != nil {
		return nil, err
	}
	var compact bytes.Buffer
	var value any
	err = writeJSON(&compact, node.Content[0])
	if err == nil {
		err = json.Unmarshal(compact.Bytes(), &value)
	}
	if err != nil || !says(d.Text, value) {
		return nil, fmt.Errorf("%s: document %d: cannot be printed as JSON; accepted: --output yaml or json", d.File, d.Number)
	}
	trimmed := bytes.TrimRight(was, " \t\r\n")
	text := &compact
	if _, second, several := bytes.Cut(trimmed, []byte("\n")); several {
		text = &bytes.Buffer{}
		indent := second[:len(second)-len(bytes.TrimLeft(second, " \t"))]
		if err := json.Indent(text, compact.Bytes(), "", string(indent)); err != nil {
			return nil, fmt.Errorf("%s: document %d: %w", d.File, d.Number, err)
		}
	}
	text.Write(was[len(trimmed):])
	return text.Bytes(), nil
}

// writeJSON prints a node whose aliases have been expanded.
func writeJSON(out *bytes.Buffer, node *yaml.Node) error {
	switch node.Kind {
	case yaml.MappingNode:
		out.WriteByte('{')
		for i := 0; i+1 < len(node.Content); i += 2 {
			if i > 0 {
				out.WriteByte(',')
			}
			writeString(out, node.Content[i].Value)
			out.WriteByte(':')
			if err := writeJSON(out, node.Content[i+1]); err != nil {
				return err
			}
		}
		out.WriteByte('}')
		return nil
	case yaml.SequenceNode:
		out.WriteByte('[')
		for i, element := range node.Content {
			if i > 0 {
				out.WriteByte(',')
			}
			if err := writeJSON(out, element); err != nil {
				return err
			}
		}
		out.WriteByte(']')
		return nil
	}
	if node.ShortTag() == "!!str" {
		writeString(out, node.Value)
		return nil
	}
	if json.Valid([]byte(node.Value)) {
		out.WriteString(node.Value) // a number keeps its form
		return nil
	}
	var value any
	if err := node.Decode(&value); err != nil {
		return err
	}
	text, err := json.Marshal(value)
	out.Write(text)
	return err
}

func writeString(out *bytes.Buffer, text string) {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(text)    // of a string it cannot fail,
	out.Truncate(out.Len() - 1) // and ends the line
}
