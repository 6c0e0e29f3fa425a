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

// printed remembers the text of options that were asked for before: to make
// one takes longer than all the rest of an injection. A process meets few,
// but annotations can make up new ones without end, so there is a limit.
var printed = struct {
	sync.Mutex
	texts map[Options]string
}{texts: map[Options]string{}}

// maxPrinted texts of some 17 kB are remembered.
const maxPrinted = 64

// Text is New and its text, fit for Envoy's --config-yaml: JSON in which what
// stands there more than once is written out once (YAML 1.2, 7.1). A pod
// carries it, and so does every copy of the pod in a cluster's memory.
func Text(opts Options) (string, error) {
	printed.Lock()
	defer printed.Unlock()
	if text, known := printed.texts[opts]; known {
		return text, nil
	}
	made, err := New(opts)
	if err != nil {
		return "", err
	}
	plain, err := JSON(made)
	if err != nil {
		return "", err
	}
	text, err := fold(plain)
	if err != nil {
		return "", err
	}
	if len(printed.texts) >= maxPrinted {
		clear(printed.texts)
	}
	printed.texts[opts] = text
	return text, nil
}
