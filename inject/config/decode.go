package config

import (
	"errors"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"github.com/shunt-dev/shunt/initimage/envoy"
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
// Fields that are not set have their value in Default, and so has a field of the
// wrong type. wrong has an error of type Invalid for each value of the wrong type,
// and one of type Forbidden for each unknown field. err is about a text that cannot
// be read at all, such as one with a duplicate key.
func Decode(text []byte) (cfg Config, wrong field.ErrorList, err error) {
	raw, err := strict.ReadDocument(text, "a mapping with apiVersion and kind")
	if err != nil {
		return Config{}, nil, err
	}
	decoded := file{Config: Default()}
	unread, err := kjson.UnmarshalStrict(raw, &decoded)
	if err != nil {
		if raw, wrong = withoutWrongTypes(raw); len(wrong) == 0 {
			return Config{}, nil, err
		}
		decoded = file{Config: Default()}
		if unread, err = kjson.UnmarshalStrict(raw, &decoded); err != nil {
			return Config{}, nil, err
		}
	}
	// In a file of another kind, other errors would be misleading.
	if err := checkType(decoded.TypeMeta).ToAggregate(); err != nil {
		return Config{}, nil, err
	}
	return decoded.Config, append(wrong, unknownFields(unread)...), nil
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
		"":                  append([]string{"apiVersion", "kind"}, strict.JSONNames[Config]()...),
		"sidecar":           strict.JSONNames[Sidecar](),
		"httpLimits":        strict.JSONNames[HTTPLimits](),
		"tcpKeepalive":      strict.JSONNames[TCPKeepalive](),
		"proxyStatsMatcher": strict.JSONNames[envoy.StatsMatcher](),
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
