// Package bench measures what Shunt costs, and prints it as tables, which
// `make bench` writes into docs/performance.md and docs/benchmarks.md:
//
//   - what it costs to put a pod's rules into its network namespace, by
//     shunt-init, and beside it by the bare iptables-restore of the same rules,
//     which is the floor, and by a call of iptables for each rule: CPU time and
//     wall time of whole processes in fresh network namespaces;
//   - what interception costs a proxy, beside the same proxy without it;
//   - how many rules the packets of a connection meet, which is counted and
//     not measured, so that a test can hold the table;
//   - what a rule of each kind costs a packet.
//
// Samples flow in, and tables flow out; what takes the samples are benchmarks.
// Ways that are compared are measured in turns, so that what else the machine
// does meets all alike, and a figure is the median of all turns.
package bench
