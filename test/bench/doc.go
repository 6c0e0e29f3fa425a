// Package bench measures what it costs to put a pod's rules into its network
// namespace: by shunt-init, and beside it by the bare iptables-restore of the
// same rules, which is the floor, and by a call of iptables for each rule.
//
// What is measured are whole processes in fresh network namespaces: the CPU
// time, user and system, that the kernel charges to a process and to all that
// it started and waited for; the time until the last of them ended; and how
// many programs were run. The benchmarks print a table of it when they end.
package bench
