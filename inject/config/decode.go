package config

import (
	"errors"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"github.com/shunt-dev/shunt/inject/strict"
)

// APIVersion and Kind must be set in a configuration file, so that a file of another
// version is never read in part.
const (
	APIVersion = "shunt.dev/v1alpha1"
	Kind       = "InjectorConfiguration"
)

// file is a Config with the apiVersion and kind of its file.
type file struct {
	metav1.TypeMeta
	Config
}

// Decode reads a Config from one YAML or JSON document, with APIVersion and Kind.
// Fields that are not set have their value in Default. A duplicate key or a value of
// the wrong type is an error. unknown has an error for each unknown field.
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
	// In a file of another kind, other errors would be misleading.
	if err := checkType(file.TypeMeta).ToAggregate(); err != nil {
		return Config{}, nil, err
	}
	return file.Config, unknownFields(unread), nil
}

func checkType(given metav1.TypeMeta) field.ErrorList {
	var errs field.ErrorList
	for _, line := range []struct{ name, value, accepted string }{
		{"apiVersion", given.APIVersion, APIVersion}, {"kind", given.Kind, Kind},
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

// unknownFields returns an error for each unknown field, with the known ones.
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
