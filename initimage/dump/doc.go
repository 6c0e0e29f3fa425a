// Package dump reads what people can get out of a pod with the programs that are
// there: iptables-save, nft -j list ruleset, ip rule, ip route and ip addr, whoever
// made the rules. Text flows in, a pod of package trace flows out. Nothing here runs
// a program or reads a namespace.
package dump
