// Package live says of the pods of a cluster what they have of Shunt, what they
// would get now, and why.
//
//	what was read of the cluster, as a check.Snapshot ─ Explain ─► one pod
//	                                                  └ List ────► a row for each workload
//
// It reads nothing itself: package cluster does. Package inject decides, as it does
// in the webhook, with the settings that package check finds to be in force.
package live
