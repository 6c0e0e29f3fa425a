// Package kernel takes wanted rule sets in and brings a network namespace to them;
// nothing else changes a namespace.
//
//	namespace ─ preflight ─► what is there ─► change(there, wanted) ─► Transaction ─► iptables-restore
//	                                                              ├─► nft.Table ─► batch ─► nf_tables
//	                                                              └─► routing ─► netlink
//
// A change is a value, worked out before anything is touched. Namespace is the
// narrow interface that carries it out: Host is the real one, and Fake behaves the
// same in memory.
package kernel
