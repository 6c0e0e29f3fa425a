// Package envoy takes a Spec, Settings and the families of a network namespace in,
// and gives the bootstrap that Envoy starts with out, as YAML with the reasons as
// comments. With it Envoy is Shunt's transparent proxy: it accepts every connection
// that the rules of package ruleset send to it, logs it, and forwards it to its own
// destination.
//
// shunt-init leaves the bootstrap in the folder that it shares with the proxy. It
// is built from plain values, without Envoy's generated API, which is several times
// as large as shunt-init. The tests check it against that API, and with Envoy
// itself.
//
//	client ─► virtualInbound :15006 ─► InboundPassthroughCluster* ─► application, at the connection's own destination
//	application ─► virtualOutbound :15001 ─► PassthroughCluster ─► the connection's own destination
//	application ─► dns :15053 ─► the pod's resolvers
//
// By default Envoy forwards bytes and reads none of them. It detects HTTP only on
// the ports that Settings name.
package envoy
