// Package patch says what an injection changed as RFC 6902 operations that
// hold the change and nothing else.
//
// A pod as it came (its bytes), the pod as it was decoded and the pod as it is
// to become flow in; operations on the bytes flow out. List elements are told
// apart by their names, so that two init containers put in front of twenty
// are two operations, where a comparison by index rewrites all twenty-two.
package patch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"gomodules.xyz/jsonpatch/v2"
)

// Diff returns the operations that make of raw, a JSON object, what after has
// that before has not. Before is raw as decoded into a Go type: whatever the
// type does not know, and whatever it would write that raw does not have,
// stays out of the operations. Before and after are marshalled as JSON.
func Diff(raw []byte, before, after any) ([]jsonpatch.Operation, error) {
	original, err := decode(raw)
	if err != nil {
		return nil, fmt.Errorf("decode the original object: %w", err)
	}
	from, err := roundTrip(before)
	if err != nil {
		return nil, fmt.Errorf("encode the decoded object: %w", err)
	}
	to, err := roundTrip(after)
	if err != nil {
		return nil, fmt.Errorf("encode the changed object: %w", err)
	}
	return object(nil, "", original, from, to), nil
}

func decode(raw []byte) (map[string]any, error) {
	var value map[string]any
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber() // a float64 would round large integers
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	return value, nil
}

func roundTrip(value any) (map[string]any, error) {
	raw, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	return decode(raw)
}

// value appends the operations for one value that raw has.
func value(ops []jsonpatch.Operation, path string, raw, from, to any) []jsonpatch.Operation {
	if reflect.DeepEqual(from, to) {
		return ops
	}
	rawMap, rawOK := raw.(map[string]any)
	fromMap, fromOK := from.(map[string]any)
	toMap, toOK := to.(map[string]any)
	if rawOK && fromOK && toOK {
		return object(ops, path, rawMap, fromMap, toMap)
	}
	rawList, rawOK := raw.([]any)
	fromList, fromOK := from.([]any)
	toList, toOK := to.([]any)
	if rawOK && fromOK && toOK && len(rawList) == len(fromList) {
		if listOps, ok := namedList(path, rawList, fromList, toList); ok {
			return append(ops, listOps...)
		}
	}
	return append(ops, jsonpatch.NewOperation("replace", path, to))
}

func object(ops []jsonpatch.Operation, path string, raw, from, to map[string]any) []jsonpatch.Operation {
	for _, key := range slices.Sorted(maps.Keys(from)) {
		_, inRaw := raw[key]
		if _, kept := to[key]; inRaw && !kept {
			ops = append(ops, jsonpatch.NewOperation("remove", Join(path, key), nil))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(to)) {
		rawValue, inRaw := raw[key]
		fromValue, inFrom := from[key]
		switch {
		case inFrom && reflect.DeepEqual(fromValue, to[key]):
		case inRaw && inFrom:
			ops = value(ops, Join(path, key), rawValue, fromValue, to[key])
		default: // an add replaces a null or an empty list that decoding dropped
			ops = append(ops, jsonpatch.NewOperation("add", Join(path, key), to[key]))
		}
	}
	return ops
}

// namedList compares two lists whose elements have names of their own, the
// common ones in the same order. It reports false for any other.
func namedList(path string, raw, from, to []any) ([]jsonpatch.Operation, bool) {
	fromNames, toNames := names(from), names(to)
	if fromNames == nil || toNames == nil || !sameOrder(fromNames, toNames) {
		return nil, false
	}
	var ops []jsonpatch.Operation
	for i, name := range slices.Backward(fromNames) {
		if !slices.Contains(toNames, name) {
			ops = append(ops, jsonpatch.NewOperation("remove", Join(path, strconv.Itoa(i)), nil))
		}
	}
	for i, name := range toNames {
		if !slices.Contains(fromNames, name) {
			ops = append(ops, jsonpatch.NewOperation("add", Join(path, strconv.Itoa(i)), to[i]))
		}
	}
	for i, name := range toNames {
		if was := slices.Index(fromNames, name); was >= 0 {
			ops = value(ops, Join(path, strconv.Itoa(i)), raw[was], from[was], to[i])
		}
	}
	return ops, true
}

// names returns the name of each element, or nil unless each has one of its
// own.
func names(list []any) []string {
	all := make([]string, 0, len(list))
	for _, element := range list {
		fields, _ := element.(map[string]any)
		name, ok := fields["name"].(string)
		if !ok || slices.Contains(all, name) {
			return nil
		}
		all = append(all, name)
	}
	return all
}

// sameOrder reports whether the words that both lists have follow each other
// in the same order.
func sameOrder(a, b []string) bool {
	common := func(list, other []string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(word string) bool { return !slices.Contains(other, word) })
	}
	return slices.Equal(common(a, b), common(b, a))
}

// Join appends a key to a JSON pointer (RFC 6901).
func Join(path, key string) string {
	return path + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}

// Split takes a JSON pointer apart into its keys.
func Split(path string) []string {
	if path == "" {
		return nil
	}
	keys := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, key := range keys {
		keys[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(key)
	}
	return keys
}
