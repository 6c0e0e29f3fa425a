// Package nft takes a rule set of one family in and gives an nftables table out, as
// a value: it can be printed as nft(8) reads it, and written to a kernel.
//
//	ruleset.RuleSet ─► Compile ─► Table ─► String ─► nft -f
//	                                    └► package kernel ─► netlink
//
// A table holds the rules of the rule set. Only lists are another way: consecutive
// rules that differ in a prefix or in ports become one rule that looks in a set, so
// that a packet meets one rule however long the list is.
package nft
