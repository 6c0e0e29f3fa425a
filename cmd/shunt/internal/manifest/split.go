package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"
)

// Document is one document of a file.
type Document struct {
	File   string // name of the file, as the user gave it
	Number int    // place in the file, from 1; documents that hold nothing do not count
	Text   []byte // with the line --- that begins it, where there is one

	above int        // how many lines of the file are above it
	empty bool       // comments and blank lines only
	wrong error      // why Text is not a YAML document
	root  *yaml.Node // what Text says, and never changed; nil until it is asked for
}

// with is the document with another text.
func (d *Document) with(text []byte) Document {
	return Document{File: d.File, Number: d.Number, Text: text, above: d.above}
}

// node is the document's text, parsed.
func (d *Document) node() (*yaml.Node, error) {
	if d.wrong != nil {
		return nil, d.wrong
	}
	if d.root == nil {
		var node yaml.Node
		if err := yaml.Unmarshal(d.Text, &node); err != nil {
			return nil, d.unreadable(err)
		}
		d.root = &node
	}
	return d.root, nil
}

// Split takes a file apart. The texts of the documents, one after the other,
// are the file's. What is wrong with one that cannot be read is told by whoever
// asks what it says.
func Split(file string, text []byte) []Document {
	chunks := splitYAML(text)
	if values, ok := splitJSON(text); ok {
		chunks = values
	}
	var docs []Document
	doc := Document{File: file}
	for _, chunk := range chunks {
		doc.Text = chunk
		var err error
		if doc.root, doc.empty, err = readDocument(chunk); !doc.empty {
			doc.Number++
		}
		if doc.wrong = nil; err != nil {
			doc.wrong = doc.unreadable(err)
		}
		docs = append(docs, doc)
		doc.above += bytes.Count(chunk, []byte("\n"))
	}
	return docs
}

// readDocument refuses what is not one YAML document, and reports whether it
// holds nothing.
func readDocument(chunk []byte) (node *yaml.Node, empty bool, err error) {
	decoder := yaml.NewDecoder(bytes.NewReader(chunk))
	node = &yaml.Node{}
	switch err := decoder.Decode(node); {
	case errors.Is(err, io.EOF):
		return nil, true, nil
	case err != nil:
		return nil, false, err
	}
	var second yaml.Node
	switch err := decoder.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		return nil, false, err
	default:
		return nil, false, fmt.Errorf("line %d: %s", second.Line, textFollows)
	}
	return node, node.Kind == yaml.DocumentNode && isNull(node.Content[0]), nil
}

func isNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null" }

// splitYAML cuts before every line that begins with the separator ---. What
// stands before the first one is a document of its own, unless it is
// directives, which belong to the document behind them.
func splitYAML(text []byte) [][]byte {
	var chunks [][]byte
	start, offset, directives := 0, 0, false
	for line := range bytes.Lines(text) {
		if isSeparator(line) && offset > start && !directives {
			chunks = append(chunks, text[start:offset])
			start = offset
		}
		directives = bytes.HasPrefix(line, []byte("%")) || directives && isRemark(line)
		offset += len(line)
	}
	if start < len(text) {
		chunks = append(chunks, text[start:])
	}
	return chunks
}

func isSeparator(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	return ok && (len(rest) == 0 || bytes.ContainsRune([]byte(" \t\r\n"), rune(rest[0])))
}

// isRemark reports whether a line is blank or a comment.
func isRemark(line []byte) bool {
	line = bytes.TrimSpace(line)
	return len(line) == 0 || line[0] == '#'
}

// splitJSON takes a row of JSON objects apart; what is between two belongs to
// the first. It reports false for text that is not one.
func splitJSON(text []byte) ([][]byte, bool) {
	if !IsJSON(text) {
		return nil, false
	}
	var values [][]byte
	decoder := json.NewDecoder(bytes.NewReader(text))
	for start := 0; ; {
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, false // YAML in flow style looks like JSON too
		}
		end := int(decoder.InputOffset())
		end += len(text[end:]) - len(bytes.TrimLeft(text[end:], " \t\r\n"))
		values = append(values, text[start:end])
		if start = end; start == len(text) {
			return values, true
		}
	}
}

// IsJSON reports whether the text begins as a JSON object does.
func IsJSON(text []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) }

// JSON returns the document as JSON, indented by two spaces; nothing for a
// document that holds nothing.
func (d Document) JSON() ([]byte, error) {
	if d.empty || d.wrong != nil {
		return nil, d.wrong
	}
	compact, err := sigsyaml.YAMLToJSON(d.Text)
	if err != nil {
		return nil, d.unreadable(err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, compact, "", "  "); err != nil {
		return nil, d.unreadable(err)
	}
	indented.WriteByte('\n')
	return indented.Bytes(), nil
}

// JSON is the documents as JSON, one after the other.
func JSON(docs []Document) ([]byte, error) {
	var all []byte
	for _, doc := range docs {
		text, err := doc.JSON()
		if err != nil {
			return nil, err
		}
		all = append(all, text...)
	}
	return all, nil
}

// Join is the text of documents that may come from several files: a line ---
// is put before each but the first, where there is none. JSON alone is a row of
// values, and needs none.
func Join(docs []Document) []byte {
	isRow := !slices.ContainsFunc(docs, func(d Document) bool { return !json.Valid(d.Text) })
	var all []byte
	for _, doc := range docs {
		if len(all) > 0 && !isRow && !startsItself(doc.Text) {
			all = append(endLine(all), "---\n"...)
		}
		if !isRow {
			all = endLine(all)
		}
		all = append(all, doc.Text...)
	}
	return all
}

// startsItself reports whether the text has a separator before its content.
func startsItself(text []byte) bool {
	for line := range bytes.Lines(text) {
		if isSeparator(line) {
			return true
		}
		if !isRemark(line) && line[0] != '%' {
			return false
		}
	}
	return false
}

func endLine(text []byte) []byte {
	if len(text) > 0 && text[len(text)-1] != '\n' {
		return append(text, '\n')
	}
	return text
}
