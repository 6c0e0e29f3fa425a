// Package manifest injects the pods of manifest files and leaves everything
// else in them as it is written.
//
//	text ─ Split ─► documents ─ Inject ─► the same documents, their pod templates injected ─► Text, or JSON
//
// A document that is not injected comes out byte for byte. Into one that is,
// the new lines are put between the old ones, so that comments, blank lines
// and fields that no Go type knows stay; only where that cannot be done, as in
// a document written as JSON, is it printed anew.
package manifest
