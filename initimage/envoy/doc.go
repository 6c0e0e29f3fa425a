// Package envoy writes the bootstrap that Envoy starts with as Shunt's
// transparent proxy: it takes every connection that the rules of package
// ruleset send to it, logs it, and carries it on to where it was going.
//
// A Spec, Settings and the families of a network namespace flow in; YAML flows
// out, with the reasons as its comments. shunt-init leaves it in the folder that
// it shares with the proxy. It is put together from plain values, without
// Envoy's generated API, which is several times as large as shunt-init; the
// tests hold it to that API, and to Envoy itself.
//
//	client ─► virtualInbound :15006 ─► InboundPassthroughCluster* ─► application, at the connection's own destination
//	application ─► virtualOutbound :15001 ─► PassthroughCluster ─► the connection's own destination
//	application ─► dns :15053 ─► the pod's resolvers
//
// By default a connection is bytes: Envoy reads none of them. HTTP is looked
// for on the ports that Settings name, and nowhere else.
package envoy
