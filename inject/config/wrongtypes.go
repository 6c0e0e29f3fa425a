package config

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
)

// wrongTypes are the values of a configuration's JSON that do not fit where
// they stand, each with its path. A decoder stops at the first and, for times
// and quantities, names no path; so each value is decoded alone.
func wrongTypes(raw []byte) field.ErrorList {
	var document any
	if err := json.Unmarshal(raw, &document); err != nil {
		return nil
	}
	return wrongValues(nil, document, func(value any) any { return value })
}

// wrongValues goes down to the values that hold no others; document puts one
// back where it stood, in a document without the rest.
func wrongValues(path *field.Path, value any, document func(any) any) field.ErrorList {
	var errs field.ErrorList
	object, isObject := value.(map[string]any)
	list, isList := value.([]any)
	switch {
	case isObject && len(object) > 0:
		for _, key := range slices.Sorted(maps.Keys(object)) {
			errs = append(errs, wrongValues(path.Child(key), object[key], func(below any) any {
				return document(map[string]any{key: below})
			})...)
		}
	case isList && len(list) > 0:
		for i := range list {
			errs = append(errs, wrongValues(path.Index(i), list[i], func(below any) any {
				return document([]any{below})
			})...)
		}
	default:
		if detail := wrongAlone(document(value)); detail != "" {
			errs = append(errs, field.Invalid(path, value, detail))
		}
	}
	return errs
}

// goType is how a decoder says what it was given and what it would have taken.
var goType = regexp.MustCompile(`^json: cannot unmarshal (\w+).* into Go .* of type (.*)$`)

// wrongAlone says what is wrong with a document of one value; nothing where it
// fits.
func wrongAlone(document any) string {
	raw, err := json.Marshal(document)
	if err == nil {
		err = kjson.UnmarshalCaseSensitivePreserveInts(raw, &file{})
	}
	if err == nil {
		return ""
	}
	match := goType.FindStringSubmatch(err.Error())
	if match == nil {
		return err.Error() // of a time or a quantity
	}
	given, wanted := match[1], match[2]
	switch {
	case strings.HasPrefix(wanted, "int"):
		return "accepted: a whole number"
	case wanted == "bool":
		return "accepted: true, false"
	case strings.HasPrefix(wanted, "[]"):
		return "accepted: a list"
	case given == "number" || given == "bool":
		return "accepted: a string; what looks like a number, true or false is one in quotes"
	case given == "string":
		return "accepted: a mapping"
	default:
		return "accepted: " + wanted
	}
}
