package inject

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	yamlnode "go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// ConfigAPIVersion and ConfigKind are what a configuration file says that it
// is, so that a file of another version is never half understood.
const (
	ConfigAPIVersion = "shunt.dev/v1alpha1"
	ConfigKind       = "InjectorConfiguration"
)

// configFile is a Config as a file has it.
type configFile struct {
	metav1.TypeMeta
	Config
}

// ParseConfig reads a Config from the YAML or JSON of one document, with
// ConfigAPIVersion and ConfigKind. What the text leaves out has its value in
// DefaultConfig. An unknown key is an error, a key that is there twice is one,
// and so is what Validate refuses; the error has all of them.
func ParseConfig(text []byte) (Config, error) {
	raw, err := readDocument(text, "a mapping with apiVersion and kind")
	if err != nil {
		return Config{}, fmt.Errorf("read the injector's configuration: %w", err)
	}
	file := configFile{Config: DefaultConfig()}
	unknown, err := kjson.UnmarshalStrict(raw, &file)
	if wrong := wrongTypes(raw); err != nil && len(wrong) > 0 {
		err = wrong.ToAggregate()
	}
	if err != nil {
		return Config{}, fmt.Errorf("read the injector's configuration: %w", err)
	}
	// Of a file of another kind nothing else is worth a word.
	if err := checkType(file.TypeMeta).ToAggregate(); err != nil {
		return Config{}, fmt.Errorf("read the injector's configuration: %w", err)
	}
	if err := append(unknownFields(unknown), file.Validate()...).ToAggregate(); err != nil {
		return Config{}, fmt.Errorf("check the injector's configuration: %w", err)
	}
	return file.Config, nil
}

// readDocument returns the JSON of the one YAML document that the text is.
func readDocument(text []byte, accepted string) ([]byte, error) {
	decoder := yamlnode.NewDecoder(bytes.NewReader(text))
	var first, second yamlnode.Node
	if err := decoder.Decode(&first); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("line %d: a second document; accepted: one", second.Line)
	}
	if len(first.Content) > 0 && first.Content[0].Kind != yamlnode.MappingNode {
		return nil, fmt.Errorf("line %d: accepted: %s", first.Content[0].Line, accepted)
	}
	var repeated faults
	repeated.duplicates(nil, &first)
	if err := repeated.aggregate(); err != nil {
		return nil, err
	}
	return yaml.YAMLToJSON(text)
}

// duplicates finds keys that a mapping has twice. A decoder would take the last
// one, or name a line and not the path.
func (f *faults) duplicates(path *field.Path, node *yamlnode.Node) {
	switch node.Kind {
	case yamlnode.DocumentNode:
		for _, child := range node.Content {
			f.duplicates(path, child)
		}
	case yamlnode.SequenceNode:
		for i, child := range node.Content {
			f.duplicates(path.Index(i), child)
		}
	case yamlnode.MappingNode:
		seen := map[string]bool{}
		for i := 0; i+1 < len(node.Content); i += 2 {
			key := node.Content[i]
			below := path.Child(key.Value)
			if seen[key.Value] {
				f.add(func() *field.Error {
					return field.Forbidden(below, fmt.Sprintf("there again in line %d; accepted: once", key.Line))
				})
			}
			seen[key.Value] = true
			f.duplicates(below, node.Content[i+1])
		}
	}
}

func checkType(is metav1.TypeMeta) field.ErrorList {
	var errs field.ErrorList
	for _, line := range []struct{ name, value, accepted string }{
		{"apiVersion", is.APIVersion, ConfigAPIVersion}, {"kind", is.Kind, ConfigKind},
	} {
		switch line.value {
		case line.accepted:
		case "":
			errs = append(errs, field.Required(field.NewPath(line.name), "accepted: "+line.accepted))
		default:
			errs = append(errs, field.NotSupported(field.NewPath(line.name), line.value, []string{line.accepted}))
		}
	}
	return errs
}

// unknownFields says what is accepted in place of fields that nothing reads.
func unknownFields(strict []error) field.ErrorList {
	accepted := map[string][]string{
		"":        append([]string{"apiVersion", "kind"}, jsonNames[Config]()...),
		"sidecar": jsonNames[Sidecar](),
	}
	var errs field.ErrorList
	for _, err := range strict {
		path := err.Error()
		var wrong kjson.FieldError
		if errors.As(err, &wrong) {
			path = wrong.FieldPath()
		}
		parent, name := "", path
		if dot := strings.LastIndex(path, "."); dot >= 0 {
			parent, name = path[:dot], path[dot+1:]
		}
		names := accepted[parent]
		if of, below, _ := strings.Cut(parent, "."); of == "templates" && below != "" && !strings.Contains(below, ".") {
			names = jsonNames[Template]()
		}
		errs = append(errs, field.Forbidden(field.NewPath(path), unknownField(name, names)))
	}
	return errs
}

// unknownField says what may be meant by the name of a field; the accepted
// ones are unknown for Kubernetes' own types.
func unknownField(name string, accepted []string) string {
	if len(accepted) == 0 {
		return "unknown field; accepted: what Kubernetes has there"
	}
	likeness := func(other string) int { return distance(strings.ToLower(name), strings.ToLower(other)) }
	text := "unknown field"
	if len(name) <= longestName {
		near := slices.MinFunc(accepted, func(a, b string) int { return likeness(a) - likeness(b) })
		if likeness(near) <= len(name)/3 {
			text += ", did you mean " + near + "?"
		}
	}
	return text + "; accepted: " + strings.Join(accepted, ", ")
}

// jsonNames are the fields of a struct as JSON has them.
func jsonNames[T any]() []string {
	var names []string
	for f := range reflect.TypeFor[T]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}
