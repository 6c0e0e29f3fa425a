// Package rules takes the rule cases of testdata/cases in and runs them by three
// executors: the rules are built, printed and compared; walked by ruleset.Trace;
// and installed in a real network namespace that real connections cross. The walker
// can be trusted because the third executor agrees with it.
package rules

//go:generate go test -count=1 -run ^TestTroubleshootingPage$ . -update
