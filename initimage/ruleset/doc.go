// Package ruleset holds the rules of one address family as a value: it can be
// built from a Spec, printed in iptables-save form, parsed back, compared, and
// asked which way a packet goes.
//
//	interception.Spec ─► Build ─► RuleSet ─► String ─► iptables-restore
//	iptables-save ─► Parse ─► RuleSet ─► Trace(packet) ─► Path
//
// Nothing here runs a command or knows a kernel. That Trace follows the rules
// as a kernel does is held by test/rules, which crosses the same rules with
// real connections.
package ruleset
