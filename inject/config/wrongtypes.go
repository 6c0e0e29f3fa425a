package config

import (
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
)

// withoutWrongTypes returns a configuration's JSON without the values of a wrong
// type, and an error with the path for each. A decoder stops at the first one and,
// for times and quantities, reports no path; so each value is decoded alone.
func withoutWrongTypes(raw []byte) (right []byte, wrong field.ErrorList) {
	var document any
	if err := json.Unmarshal(raw, &document); err != nil {
		return raw, nil
	}
	wrong = clearWrong(nil, document, func(value any) any { return value }, func() { document = nil })
	right, err := json.Marshal(document)
	if err != nil {
		panic("what was JSON is JSON: " + err.Error())
	}
	return right, wrong
}

// clearWrong checks a value, and what it contains, and clears the wrong ones; alone
// wraps one in a document with nothing else, at the same path.
func clearWrong(path *field.Path, value any, alone func(any) any, clearValue func()) field.ErrorList {
	object, isObject := value.(map[string]any)
	list, isList := value.([]any)
	empty := value
	switch {
	case isObject:
		empty = map[string]any{}
	case isList:
		empty = []any{}
	}
	if detail := wrongAlone(alone(empty)); detail != "" {
		clearValue()
		return field.ErrorList{field.Invalid(path, value, detail)}
	}
	var errs field.ErrorList
	for _, key := range slices.Sorted(maps.Keys(object)) {
		errs = append(errs, clearWrong(path.Child(key), object[key],
			func(below any) any { return alone(map[string]any{key: below}) }, func() { delete(object, key) })...)
	}
	for i := range list {
		errs = append(errs, clearWrong(path.Index(i), list[i],
			func(below any) any { return alone([]any{below}) }, func() { list[i] = nil })...)
	}
	return errs
}

// wrongAlone returns what is wrong with a document of one value; empty if nothing.
func wrongAlone(document any) string {
	raw, err := json.Marshal(document)
	if err == nil {
		err = kjson.UnmarshalCaseSensitivePreserveInts(raw, &file{})
	}
	if err == nil {
		return ""
	}
	// Kubernetes' decoder hides which type it wanted; Go's does not.
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(json.Unmarshal(raw, &file{}), &wrong):
		return "accepted: " + acceptedType(wrong)
	case strings.HasPrefix(err.Error(), "time: "):
		return "accepted: " + AcceptedDuration
	case strings.HasPrefix(err.Error(), "quantities must "):
		return "accepted: a quantity such as 100m or 128Mi"
	default:
		return err.Error()
	}
}

func acceptedType(wrong *json.UnmarshalTypeError) string {
	switch wrong.Type.Kind() {
	case reflect.Bool:
		return "true, false"
	case reflect.Slice:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "a mapping"
	case reflect.String:
		if wrong.Value == "bool" || strings.HasPrefix(wrong.Value, "number") {
			return "a string; what looks like a number, true or false is one in quotes"
		}
		return "a string"
	default:
		return "a whole number"
	}
}
