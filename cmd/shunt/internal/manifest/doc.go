// Package manifest injects the pods of manifest files, or gives them back as
// they were, and leaves everything else in them as it is written.
//
//	text ─ Split ─► documents ─ Inject or Restore ─► the same documents, their pod templates changed ─► Text, or JSON
//
// A document in which nothing changes comes out byte for byte. In one that is
// injected the new lines are put between the old ones, so that comments, blank
// lines and fields that no Go type knows stay, and are taken out again when it
// is restored; only where that cannot be done, as in a document written as
// JSON, is it printed anew.
package manifest
