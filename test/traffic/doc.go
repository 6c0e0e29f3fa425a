// Package traffic takes trials in, each a client that talks to a server, runs them
// directly and through the proxy of an injected pod, in both interception modes and
// in TPROXY without conntrack, both families and both directions, and compares what
// both ends saw. It has to be the same, except for the documented differences.
//
//	network_linux_test.go      a network without a proxy, or with an injected pod in it
//	way_linux_test.go          a way from a client to a server in such a network
//	compare_linux_test.go      what is compared, and how
//	differences_linux_test.go  the documented differences, each with its reason
//	lines, endings, bytes      sockets: short connections, how a connection ends, bytes that HTTP would change
//	programs, ftp, h2spec …    real clients and servers, as in Debian
//
// The environment variables ENVOY and H2SPEC hold the paths of Envoy and h2spec.
// `make test-traffic` provides both, and Debian's packages.
package traffic
