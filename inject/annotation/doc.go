// Package annotation reads what the labels and annotations of a pod and its
// namespace ask for: keys and values flow in, a Request flows out, or every
// Problem with them.
//
// A new annotation needs a key in keys.go, a row in table.go (in table_proxy.go
// for the proxy's own settings), a field of Request and cases in
// inject/testdata/cases. If the configuration has the same setting, Override
// applies the annotation over it. make generate writes the row into
// docs/annotations.md, and its key into config/policies.
package annotation

//go:generate go test -count=1 -run ^TestPolicies$ . -update
