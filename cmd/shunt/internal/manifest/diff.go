package manifest

import (
	"github.com/aymanbagabas/go-udiff"
)

// contextLines is how many lines diff(1) shows around a change.
const contextLines = 3

// Diff is a unified diff of a file's documents, as they were and as they are,
// and have become in a word; empty where nothing changed. It applies to the file with patch(1). A file of
// JSON is compared as JSON prints it, because its injected documents are YAML.
func Diff(file, become string, before, after []Document) ([]byte, error) {
	content, edits := "", []udiff.Edit(nil)
	for i := range before {
		from, to := before[i].Text, after[i].Text
		if IsJSON(from) {
			var err error
			if from, err = before[i].JSON(); err != nil {
				return nil, err
			}
			if to, err = after[i].JSON(); err != nil {
				return nil, err
			}
		}
		// Document by document: equal lines of two are not to be taken for
		// each other.
		for _, edit := range udiff.Lines(string(from), string(to)) {
			edits = append(edits, udiff.Edit{Start: edit.Start + len(content), End: edit.End + len(content), New: edit.New})
		}
		content += string(from)
	}
	if len(edits) == 0 {
		return nil, nil
	}
	text, err := udiff.ToUnified(file, file+" ("+become+")", content, edits, contextLines)
	return []byte(text), err
}
