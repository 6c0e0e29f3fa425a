package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	rfc6902 "github.com/evanphx/json-patch/v5"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/shunt-dev/shunt/inject/podplan"
)

// apply returns a document's text with the operations carried out. Neither way
// to do that is trusted: the text must say what the operations ask for.
func apply(doc Document, operations []podplan.Operation) ([]byte, error) {
	wanted, err := meant(doc.Text, operations)
	if err != nil {
		return nil, err
	}
	// Lines put between the document's own are better to read.
	if spliced, ok := splice(doc, operations); ok && says(spliced, wanted) {
		return spliced, nil
	}
	printed, err := reprint(doc.Text, operations)
	if err == nil && !says(printed, wanted) {
		err = errors.New("printed anew, it would say something else than it does; accepted: YAML in block style")
	}
	return printed, err
}

// meant is the document with the operations carried out, as a value.
func meant(text []byte, operations []podplan.Operation) (any, error) {
	before, err := sigsyaml.YAMLToJSON(text)
	if err != nil {
		return nil, err
	}
	changes, err := rfc6902.DecodePatch(podplan.EncodePatch(operations))
	if err != nil {
		return nil, err
	}
	after, err := changes.Apply(before)
	if err != nil {
		return nil, fmt.Errorf("carry out the operations: %w", err)
	}
	var value any
	return value, json.Unmarshal(after, &value)
}

// says reports whether a text, YAML or JSON, has a value.
func says(text []byte, wanted any) bool {
	encoded, err := sigsyaml.YAMLToJSON(text)
	if err != nil {
		return false
	}
	var value any
	return json.Unmarshal(encoded, &value) == nil && reflect.DeepEqual(value, wanted)
}
