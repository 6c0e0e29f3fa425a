// Package annotation reads what the labels and annotations of a pod and its
// namespace ask for: keys and values flow in, a Request flows out, or every
// Problem with them.
//
// A new annotation is a key in keys.go, a row of the table in table.go, or in
// table_proxy.go for what the proxy is and has, and a field of Request, which
// Override puts in the place of the configuration's where that has one. It takes
// cases in inject/testdata/cases, and make generate writes its row into
// docs/annotations.md.
package annotation
