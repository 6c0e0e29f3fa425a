// Package check says what is well and what is not with Shunt in a cluster.
//
//	what was read of the cluster, as a Snapshot ─ Run ─► Findings
//
// It asks nothing of the cluster itself: package cluster does, and what it has
// to fetch beside plain objects is what Snapshot.Targets names. Whether a pod
// should have the proxy is decided by package inject, as the webhook does it.
package check
