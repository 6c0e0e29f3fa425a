// Package trace follows a connection through a pod: which way it goes, and why. A
// pod's rules and a question flow in, a journey flows out: each packet that opens a
// connection or answers one, with every hook, table and chain that it passes, and on
// through the proxy until the bytes reach the app or leave the pod. Everything here
// is a value; nothing reads a namespace.
package trace
