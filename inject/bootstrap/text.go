package bootstrap

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/encoding/protojson"
)

// JSON prints a bootstrap in one line, always the same for the same bootstrap.
func JSON(b *bootstrapv3.Bootstrap) ([]byte, error) {
	// protojson adds spaces at random so that nobody relies on its bytes.
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("print the bootstrap: %w", err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return nil, fmt.Errorf("print the bootstrap: %w", err)
	}
	return compact.Bytes(), nil
}

// printed remembers what was asked for before: to make it takes longer than
// all the rest of an injection. A process meets few options, but annotations
// can make up new ones without end, so there is a limit.
var printed = struct {
	sync.Mutex
	texts map[Options]text
}{texts: map[Options]text{}}

// maxPrinted texts of some 18 kB, and as much quoted, are remembered.
const maxPrinted = 64

// text is a bootstrap as a pod carries it.
type text struct {
	plain  string
	quoted []byte // as a JSON string
}

// Text is New and its text, fit for Envoy's --config-yaml: JSON in which what
// stands there more than once is written out once (YAML 1.2, 7.1). A pod
// carries it, and so does every copy of the pod in a cluster's memory.
func Text(opts Options) (string, error) {
	t, err := printedText(opts)
	return t.plain, err
}

// Quoted is Text as a JSON string. It must not be changed.
func Quoted(opts Options) ([]byte, error) {
	t, err := printedText(opts)
	return t.quoted, err
}

func printedText(opts Options) (text, error) {
	printed.Lock()
	defer printed.Unlock()
	if t, known := printed.texts[opts]; known {
		return t, nil
	}
	made, err := New(opts)
	if err != nil {
		return text{}, err
	}
	whole, err := JSON(made)
	if err != nil {
		return text{}, err
	}
	var t text
	if t.plain, err = fold(whole); err != nil {
		return text{}, err
	}
	if t.quoted, err = json.Marshal(t.plain); err != nil {
		return text{}, fmt.Errorf("quote the bootstrap: %w", err)
	}
	if len(printed.texts) >= maxPrinted {
		clear(printed.texts)
	}
	printed.texts[opts] = t
	return t, nil
}
