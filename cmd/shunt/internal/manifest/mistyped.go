package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/inject/strict"
)

// mistyped finds what of a JSON value is not of the type that Kubernetes has
// there, in Kubernetes' words: a path with indexes, and JSON's names of types.
// A field that the type does not know is no fault.
type mistyped struct {
	told field.ErrorList
	more int
}

// errors are the faults of an object, each placed, in the order of the file.
func (m *mistyped) errors(w Workload) error {
	slices.SortStableFunc(m.told, func(a, b *field.Error) int { return w.line(a) - w.line(b) })
	var errs []error
	for _, wrong := range m.told {
		errs = append(errs, w.wrong(wrong))
	}
	if m.more > 0 {
		errs = append(errs, w.wrong(errors.New(strict.AndMore(m.more))))
	}
	return errors.Join(errs...)
}

// explain finds what is wrong with text that does not decode into a value of
// the type. The path, of an object's fields, leads to it.
func (m *mistyped) explain(text []byte, of reflect.Type, path *field.Path) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	if decoder.Decode(&value) == nil {
		m.look(value, of, path, nil)
	}
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// ownForms are the types that read JSON their own way, with what they accept.
var ownForms = map[reflect.Type]string{
	reflect.TypeFor[resource.Quantity]():  "a quantity such as 100m or 128Mi",
	reflect.TypeFor[intstr.IntOrString](): "an integer or a string",
	reflect.TypeFor[metav1.Time]():        "a time such as 2006-01-02T15:04:05Z",
	reflect.TypeFor[metav1.MicroTime]():   "a time such as 2006-01-02T15:04:05.000000Z",
}

// look compares a value with its type. Names are those of the elements of lists
// that it is in, such as container "app".
func (m *mistyped) look(value any, of reflect.Type, path *field.Path, names []string) {
	for of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	wrong := func(accepted string) { m.add(path, value, accepted, names) }
	switch {
	case value == nil:
	case reflect.PointerTo(of).Implements(unmarshaler):
		text, err := json.Marshal(value)
		if err == nil && json.Unmarshal(text, reflect.New(of).Interface()) != nil {
			accepted, known := ownForms[of]
			if !known {
				accepted = "what Kubernetes has there"
			}
			wrong(accepted)
		}
	default:
		m.lookAtKind(value, of, path, names)
	}
}

func (m *mistyped) lookAtKind(value any, of reflect.Type, path *field.Path, names []string) {
	wrong := func(accepted string) { m.add(path, value, accepted, names) }
	switch of.Kind() {
	case reflect.Struct:
		object, is := value.(map[string]any)
		if !is {
			wrong("an object")
			return
		}
		m.fields(object, of, path, names)
	case reflect.Map:
		object, is := value.(map[string]any)
		if !is {
			wrong("an object")
			return
		}
		for _, key := range slices.Sorted(maps.Keys(object)) {
			m.look(object[key], of.Elem(), path.Key(key), names)
		}
	case reflect.Slice:
		m.elements(value, of, path, names)
	case reflect.String:
		if _, is := value.(string); !is {
			wrong("a string")
		}
	case reflect.Bool:
		if _, is := value.(bool); !is {
			wrong("a boolean")
		}
	case reflect.Int32, reflect.Int64:
		number, _ := value.(json.Number)
		switch _, err := strconv.ParseInt(string(number), 10, of.Bits()); {
		case errors.Is(err, strconv.ErrRange):
			wrong(fmt.Sprintf("an integer of %d bits", of.Bits()))
		case err != nil:
			wrong("an integer")
		}
	}
}

// fields looks at the fields of a struct, those of embedded ones too.
func (m *mistyped) fields(object map[string]any, of reflect.Type, path *field.Path, names []string) {
	for i := range of.NumField() {
		f := of.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" && f.Anonymous {
			m.fields(object, f.Type, path, names)
		} else if value, there := object[name]; there {
			m.look(value, f.Type, path.Child(name), names)
		}
	}
}

func (m *mistyped) elements(value any, of reflect.Type, path *field.Path, names []string) {
	if of.Elem().Kind() == reflect.Uint8 {
		text, is := value.(string)
		if quoted, err := json.Marshal(text); !is || err != nil || json.Unmarshal(quoted, &[]byte{}) != nil {
			m.add(path, value, "a string of base64", names)
		}
		return
	}
	list, is := value.([]any)
	if !is {
		m.add(path, value, "an array", names)
		return
	}
	for i, element := range list {
		m.look(element, of.Elem(), path.Index(i), named(names, path, element))
	}
}

// named are the names with that of an element of the list at the path, where
// it has one.
func named(names []string, list *field.Path, element any) []string {
	object, _ := element.(map[string]any)
	name, is := object["name"].(string)
	if !is {
		return names
	}
	of := list.String()
	of = of[strings.LastIndexByte(of, '.')+1:]
	return append(names[:len(names):len(names)], fmt.Sprintf("%s %q", strings.TrimSuffix(of, "s"), brief(name)))
}

func (m *mistyped) add(path *field.Path, value any, accepted string, names []string) {
	if len(m.told) == strict.MostTold {
		m.more++
		return
	}
	detail := jsonType(value) + "; accepted: " + accepted
	if len(names) > 0 {
		detail = jsonType(value) + ", of " + strings.Join(names, ", ") + "; accepted: " + accepted
	}
	if text, is := value.(string); is && strings.Contains(text, "{{") {
		detail += renderFirst
	}
	switch quoted := value.(type) {
	case bool, json.Number:
	case string:
		value = brief(quoted)
	default:
		text, _ := json.Marshal(quoted)
		if value = json.RawMessage(text); len(text) > longestQuote {
			value = brief(string(text))
		}
	}
	m.told = append(m.told, field.Invalid(path, value, detail))
}

// renderFirst is for text that a template engine should have replaced.
const renderFirst = "; it looks like a template: render it first, as with helm template"

// longestQuote is how much of a value a message quotes.
const longestQuote = 100

func brief(text string) string { return strict.Cut(text, longestQuote) }

// jsonType is what JSON calls a value.
func jsonType(value any) string {
	switch value.(type) {
	case string:
		return "a string"
	case bool:
		return "a boolean"
	case json.Number:
		return "a number"
	case []any:
		return "an array"
	default:
		return "an object"
	}
}
