// Package ruleset takes a Spec in and gives the rules of one address family out, as
// a value: it can be printed in iptables-save form, parsed back, compared, and
// walked by a packet.
//
//	interception.Spec ─► Build ─► RuleSet ─► String ─► iptables-restore
//	iptables-save ─► Parse ─► RuleSet ─► Trace(packet) ─► Path
//
// Nothing here runs a command or asks a kernel. test/rules checks that Trace
// follows the rules as a kernel does: it sends real connections through the same
// rules.
package ruleset
