package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"
)

// Document is one document of a file.
type Document struct {
	File   string // name of the file, as the user gave it
	Number int    // place in the file, from 1; documents that hold nothing do not count
	Text   []byte // with the line --- that begins it, where there is one

	empty bool       // comments and blank lines only
	root  *yaml.Node // what Text says, and never changed; nil until it is asked for
}

// node is the document's text, parsed.
func (d *Document) node() (*yaml.Node, error) {
	if d.root == nil {
		var node yaml.Node
		if err := yaml.Unmarshal(d.Text, &node); err != nil {
			return nil, fmt.Errorf("%s: document %d: %s", d.File, d.Number, oneLine(err))
		}
		d.root = &node
	}
	return d.root, nil
}

// Split takes a file apart. The texts of the documents, one after the other,
// are the file's, unless the file is a row of JSON values, where the space
// between them is lost.
func Split(file string, text []byte) ([]Document, error) {
	chunks := splitYAML(text)
	if values, ok := splitJSON(text); ok {
		chunks = values
	}
	var docs []Document
	number := 0
	for _, chunk := range chunks {
		node, empty, err := readDocument(chunk)
		if !empty {
			number++
		}
		if err != nil {
			return nil, fmt.Errorf("%s: document %d: %w", file, number, err)
		}
		docs = append(docs, Document{File: file, Number: number, Text: chunk, empty: empty, root: node})
	}
	return docs, nil
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
		return nil, false, fmt.Errorf("read it as YAML: %w", err)
	}
	var second yaml.Node
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, false, errors.New("text follows its end; accepted: documents with a line --- between them")
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

// splitJSON takes a row of JSON objects apart. It reports false for text that
// is not one.
func splitJSON(text []byte) ([][]byte, bool) {
	if !IsJSON(text) {
		return nil, false
	}
	var values [][]byte
	decoder := json.NewDecoder(bytes.NewReader(text))
	for {
		var value json.RawMessage
		err := decoder.Decode(&value)
		if errors.Is(err, io.EOF) {
			return values, true
		}
		if err != nil {
			return nil, false // YAML in flow style looks like JSON too
		}
		values = append(values, append(value, '\n'))
	}
}

// IsJSON reports whether the text begins as a JSON object does.
func IsJSON(text []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) }

// JSON returns the document as JSON, indented by two spaces; nothing for a
// document that holds nothing.
func (d Document) JSON() ([]byte, error) {
	if d.empty {
		return nil, nil
	}
	compact, err := sigsyaml.YAMLToJSON(d.Text)
	if err != nil {
		return nil, fmt.Errorf("%s: document %d: %s", d.File, d.Number, oneLine(err))
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, compact, "", "  "); err != nil {
		return nil, fmt.Errorf("%s: document %d: %w", d.File, d.Number, err)
	}
	indented.WriteByte('\n')
	return indented.Bytes(), nil
}

// strictJSON is JSON of a document in which no key is there twice. The YAML
// library's own strict reader takes a key that wins over a merged one for that.
func (d Document) strictJSON() ([]byte, error) {
	node, err := d.node()
	if err != nil {
		return nil, err
	}
	if again := duplicate(node); again != nil {
		return nil, fmt.Errorf("%s: document %d: line %d: key %q is there twice; accepted: once",
			d.File, d.Number, again.Line, again.Value)
	}
	return d.JSON()
}

// duplicate finds a key that its mapping has twice; the line counts from the
// document's first.
func duplicate(node *yaml.Node) *yaml.Node {
	seen := map[string]bool{}
	for i, child := range node.Content {
		if node.Kind == yaml.MappingNode && i%2 == 0 {
			if seen[child.Value] {
				return child
			}
			seen[child.Value] = true
		}
		if again := duplicate(child); again != nil {
			return again
		}
	}
	return nil
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
// is put before each but the first, where there is none.
func Join(docs []Document) []byte {
	var all []byte
	for _, doc := range docs {
		if len(all) > 0 && !startsItself(doc.Text) {
			all = append(endLine(all), "---\n"...)
		}
		all = append(endLine(all), doc.Text...)
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

// oneLine folds a message that a YAML library broke into lines.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
