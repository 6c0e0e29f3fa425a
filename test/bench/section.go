package bench

import (
	"fmt"
	"strings"
)

// Section is a measured part of a document: the text between two markers, which
// a Markdown reader does not show.
type Section struct {
	Name string // in the first marker
	Text string // complete lines
}

func (s Section) markers() (begin, end string) {
	return "<!-- measured: " + s.Name + " -->\n", "<!-- /measured -->"
}

// Fill returns the document with the section's text between its markers.
func (s Section) Fill(document string) (string, error) {
	before, _, after, err := s.cut(document)
	if err != nil {
		return "", err
	}
	return before + "\n" + s.Text + "\n" + after, nil
}

// In returns the text that the document has between the section's markers.
func (s Section) In(document string) (string, error) {
	_, text, _, err := s.cut(document)
	return strings.Trim(text, "\n") + "\n", err
}

// cut parts a document into what stands up to the first marker, between the
// two, and from the second.
func (s Section) cut(document string) (before, text, after string, err error) {
	begin, end := s.markers()
	before, rest, found := strings.Cut(document, begin)
	text, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return "", "", "", fmt.Errorf("section %s: the document lacks the line %q, or a line %q behind it", s.Name, begin, end)
	}
	return before + begin, text, end + after, nil
}
