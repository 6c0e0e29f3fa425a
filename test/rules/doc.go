// Package rules holds the corpus of rule cases, in testdata/cases, and its
// three executors: the rules are built, printed and compared; walked by
// ruleset.Trace; and put into a real network namespace that real connections
// cross. The walker is trusted because the third agrees with it.
package rules
