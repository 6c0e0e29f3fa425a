package config

import (
	"errors"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"github.com/shunt-dev/shunt/inject/strict"
)

// APIVersion and ConfigKind are what a configuration file says that it
// is, so that a file of another version is never half understood.
const (
	APIVersion = "shunt.dev/v1alpha1"
	Kind       = "InjectorConfiguration"
)

// file is a Config as a file has it.
type file struct {
	metav1.TypeMeta
	Config
}

// Decode reads a Config from the YAML or JSON of one document, with
// ConfigAPIVersion and ConfigKind. What the text leaves out has its value in
// DefaultConfig. A key that is there twice is an error, and so is a value of
// another type. Unknown are the fields that nothing reads.
func Decode(text []byte) (cfg Config, unknown field.ErrorList, err error) {
	raw, err := strict.ReadDocument(text, "a mapping with apiVersion and kind")
	if err != nil {
		return Config{}, nil, err
	}
	file := file{Config: Default()}
	unread, err := kjson.UnmarshalStrict(raw, &file)
	if wrong := wrongTypes(raw); err != nil && len(wrong) > 0 {
		err = wrong.ToAggregate()
	}
	if err != nil {
		return Config{}, nil, err
	}
	// Of a file of another kind nothing else is worth a word.
	if err := checkType(file.TypeMeta).ToAggregate(); err != nil {
		return Config{}, nil, err
	}
	return file.Config, unknownFields(unread), nil
}

func checkType(is metav1.TypeMeta) field.ErrorList {
	var errs field.ErrorList
	for _, line := range []struct{ name, value, accepted string }{
		{"apiVersion", is.APIVersion, APIVersion}, {"kind", is.Kind, Kind},
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
func unknownFields(wrong []error) field.ErrorList {
	accepted := map[string][]string{
		"":        append([]string{"apiVersion", "kind"}, strict.JSONNames[Config]()...),
		"sidecar": strict.JSONNames[Sidecar](),
	}
	var errs field.ErrorList
	for _, err := range wrong {
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
			names = strict.JSONNames[Template]()
		}
		errs = append(errs, field.Forbidden(field.NewPath(path), strict.UnknownField(name, names)))
	}
	return errs
}
