// Package kernel is the only place that changes a network namespace.
//
//	namespace ─ preflight ─► what is there ─► plan(there, wanted) ─► Transaction ─► iptables-restore
//	                                                             └─► routing ─► netlink
//
// What is to be done is a value, worked out before anything is touched;
// Namespace is the narrow effect behind it, with the real Host and a Fake that
// behaves the same.
package kernel
