// Package strict reads YAML and JSON strictly: text flows in, a value flows out,
// or every fault with its path.
//
// A stranger's text can be long, and so can the list of its faults. Faults keeps
// the first ones and counts the rest, and quotes are shortened.
package strict
