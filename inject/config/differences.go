package config

import "fmt"

// Difference is a field whose value differs between two configurations.
type Difference struct {
	// Field is the field's path, such as proxyResources.limits.memory.
	Field string `json:"field"`
	// Old and New are its values, empty where it is not set.
	Old string `json:"old"`
	New string `json:"new"`
}

// String returns a line such as "logLevel: warning -> debug".
func (d Difference) String() string {
	return fmt.Sprintf("%s: %s -> %s", d.Field, orUnset(d.Old), orUnset(d.New))
}

func orUnset(value string) string {
	if value == "" {
		return "unset"
	}
	return value
}

// Differences returns the fields whose values differ, in the order of the fields.
// Only fields without fields of their own count, and a list is one field.
func Differences(before, after Config) []Difference {
	old, leaves := map[string]string{}, Leaves(before)
	for _, leaf := range leaves {
		old[leaf.Path] = leaf.Value
	}
	var all []Difference
	seen := map[string]bool{}
	for _, leaf := range Leaves(after) {
		seen[leaf.Path] = true
		if old[leaf.Path] != leaf.Value {
			all = append(all, Difference{Field: leaf.Path, Old: old[leaf.Path], New: leaf.Value})
		}
	}
	for _, leaf := range leaves {
		if !seen[leaf.Path] && leaf.Value != "" {
			all = append(all, Difference{Field: leaf.Path, Old: leaf.Value})
		}
	}
	return all
}
