// Package prove says what holds for all connections of a pod, and how two pods
// differ. A pod's rules flow in, statements flow out: each with its proof, or with a
// connection for which it does not hold.
//
// It looks at classes of connections rather than at samples: package trace divides
// everything that can be sent into sets that go exactly the same way. Everything here
// is a value; nothing reads a namespace.
package prove
