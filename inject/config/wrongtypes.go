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

// wrongTypes returns an error for each value of a wrong type in a configuration's
// JSON, with its path. A decoder stops at the first one and, for times and
// quantities, reports no path; so each value is decoded alone.
func wrongTypes(raw []byte) field.ErrorList {
	var document any
	if err := json.Unmarshal(raw, &document); err != nil {
		return nil
	}
	return wrongValues(nil, document, func(value any) any { return value })
}

// wrongValues checks each value that contains no other; document wraps one in a
// document with nothing else, at the same path.
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

// goType matches a decoder's error with the given and the wanted type.
var goType = regexp.MustCompile(`^json: cannot unmarshal (\w+).* into Go .* of type (.*)$`)

// wrongAlone returns what is wrong with a document of one value; empty if nothing.
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
		return err.Error() // a time or a quantity
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
