// Package check takes a snapshot of a cluster in and gives findings about Shunt's
// installation and pods out.
//
//	what was read of the cluster, as a Snapshot ─ Run ─► Findings
//
// It reads nothing from the cluster itself: package cluster does, and
// Snapshot.Targets names what it has to fetch besides plain objects. Package inject
// decides whether a pod should have the proxy, as it does in the webhook.
package check
