package manifest

import (
	"strconv"
	"strings"
)

// splitPointer takes a JSON pointer apart into its keys.
func splitPointer(path string) []string {
	keys := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, key := range keys {
		keys[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(key)
	}
	return keys
}

// elementIndex reads the last key of a pointer to an element of a list of n; a
// dash stands for the one behind the last.
func elementIndex(key string, n int) (int, error) {
	if key == "-" {
		return n, nil
	}
	return strconv.Atoi(key)
}
