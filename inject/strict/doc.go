// Package strict reads YAML and JSON strictly and words what is wrong with it:
// text flows in, a value flows out, or every fault with its path.
//
// What a stranger sends can be long, and so can what is wrong with it. Faults
// tells the first ones and counts the rest, and quotes are shortened.
package strict
