package envoy

import (
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// listeners returns, for each family, inbound and outbound, health and metrics, and
// those for DNS if it is captured.
func (b builder) listeners() list {
	var all list
	for _, f := range b.families {
		all = append(all, b.inbound(f), b.outbound(f), b.health(f), b.metrics(f))
		if b.spec.DNS.Redirect {
			all = append(all, b.dnsUDP(f), b.dnsTCP(f))
		}
	}
	return all
}

// passthroughKind is what differs between the listeners that forward the pod's
// connections.
type passthroughKind struct {
	name, direction string
	family          family
	port            uint16
	cluster         string // that forwards connections
	httpPorts       string // on which HTTP is detected
	health          object // the route of a health check that gets here

	connections, requests []field // their access logs
}

func (b builder) inbound(f family) object {
	return b.passthrough(passthroughKind{
		name: "virtualInbound" + f.suffix, direction: inboundDirection, family: f, port: b.spec.InboundPort,
		cluster: inboundCluster(f), httpPorts: b.InboundHTTPPorts, health: toCluster(healthCluster("outbound", f)),
		connections: b.connectionLog(), requests: b.requestLog(),
	})
}

// outbound returns the outbound listener. Unlike Istio's it is not transparent in
// TPROXY either: the pod's own connections come by nat REDIRECT, to an address of
// this socket. Only without conntrack they come by TPROXY, too.
func (b builder) outbound(f family) object {
	return b.passthrough(passthroughKind{
		name: "virtualOutbound" + f.suffix, direction: outboundDirection, family: f, port: b.spec.OutboundPort,
		cluster: passthroughCluster, httpPorts: b.OutboundHTTPPorts, health: status(200),
		connections: b.wholeLog(), requests: b.wholeLog(),
	})
}

// The directions of listeners, as Envoy names them.
const (
	inboundDirection  = "INBOUND"
	outboundDirection = "OUTBOUND"
)

// passthrough accepts connections to any destination and forwards them by the
// cluster. Those to the port itself would come back for ever. The listener does not
// use use_original_dst, which would give a connection to another host's port 15021
// to the health listener.
//
//	destination                    | first bytes             | filter chain
//	loopback, own port             | (from loopback only)    | health
//	any other, own port            |                         | blackhole
//	loopback, inbound              |                         | loopback: closed
//	any, not a port for HTTP       | not looked at           | tcp
//	any, a port for HTTP           | HTTP/1.1, HTTP/2 (h2c)  | http
//	any, a port for HTTP           | TLS ClientHello         | tls
//	any, a port for HTTP           | others, or none in time | tcp
//
// In TPROXY the connections that the pod makes to itself have chains of their own,
// with another cluster.
func (b builder) passthrough(kind passthroughKind) object {
	transparent := b.mode == interception.ModeTProxy && (kind.direction == inboundDirection || b.spec.NoConntrack)
	chains := list{
		healthChain(kind),
		b.blackHoleChain("blackhole", "A connection to this port itself would come back for ever.",
			set("destination_port", int(kind.port))),
	}
	if kind.direction == inboundDirection {
		chains = append(chains, b.blackHoleChain("loopback", "No other host may reach the pod's loopback interface.",
			set("prefix_ranges", ranges(kind.family.loopbackRanges...))))
	}
	filters := list{extension("envoy.filters.listener.original_dst", "envoy.extensions.filters.listener.original_dst.v3.OriginalDst")}
	listener := object{
		set("name", kind.name),
		set("traffic_direction", kind.direction),
		set("metadata", listenerNames(kind.name, kind.direction)),
		set("address", address(kind.family.anyAddress, kind.port)),
		bufferLimited,
		explained(keepaliveReason, "socket_options", b.keepaliveOptions()),
	}
	if transparent {
		listener = append(listener, explained("Packets keep their destination address, which is not this socket's.",
			"transparent", true))
	}
	if transparent && kind.direction == inboundDirection {
		// Before the inspectors: if those time out, Envoy skips all filters after
		// them.
		filters = append(filters, extension("envoy.filters.listener.original_src",
			"envoy.extensions.filters.listener.original_src.v3.OriginalSrc", set("mark", int(b.spec.Mark))))
	}
	chains = append(chains, b.chains(kind, kind.cluster)...)
	if kind.direction == inboundDirection && b.separatesSelf() {
		self, cluster := set("source_type", "SAME_IP_OR_LOOPBACK"), kind.cluster+selfSuffix
		chains = append(chains, b.chains(kind, cluster, self)...)
		chains = append(chains, append(b.tcpChain("tcp", cluster, kind.connections), set("filter_chain_match", object{self})))
		if kind.httpPorts != "" { // if some chains have a transport protocol, Envoy ignores those without one
			raw := object{set("transport_protocol", "raw_buffer"), self}
			chains = append(chains, append(b.tcpChain("tcp", cluster, kind.connections), set("filter_chain_match", raw)))
		}
	}
	if kind.httpPorts != "" {
		filters = append(filters, inspectors(kind.httpPorts)...)
		listener = append(listener,
			set("listener_filters_timeout", detectionTimeout), set("continue_on_listener_filters_timeout", true))
	}
	return append(listener,
		set("listener_filters", filters),
		set("filter_chains", chains),
		// Envoy closes what no chain accepts, and does not go back to a less
		// specific chain: plain TCP must be the default chain.
		set("default_filter_chain", b.tcpChain("tcp", kind.cluster, kind.connections)),
	)
}

// chains handle what was detected as HTTP or TLS, of connections that match.
func (b builder) chains(kind passthroughKind, cluster string, match ...field) list {
	if kind.httpPorts == "" {
		return nil
	}
	http := append(object{
		set("transport_protocol", "raw_buffer"), set("application_protocols", list{"http/1.1", "h2c"}),
	}, match...)
	tls := append(object{set("transport_protocol", "tls")}, match...)
	return list{
		append(b.httpChain(cluster, kind.requests), set("filter_chain_match", http)),
		append(b.tcpChain("tls", cluster, kind.connections), set("filter_chain_match", tls)),
	}
}

// detectionTimeout is how long a client may take to send the first bytes of its
// protocol, on a port on which HTTP is detected. After it the connection is
// forwarded as TCP, so it is also the longest delay for a server that speaks first.
// A client that speaks first sends its bytes right after the handshake. But on a
// busy node the two may be handled a tenth of a second apart, and a request taken
// for TCP has no telemetry and cannot be ended gracefully when the pod drains.
const detectionTimeout = 500 * time.Millisecond

// inspectors look at the first bytes of a connection to one of the ports, and leave
// them unread.
func inspectors(ports string) list {
	var disabled object
	if ports == AllPorts {
		disabled = toPorts(ServerFirstPorts)
	} else {
		disabled = object{set("not_match", toPorts(ports))}
	}
	var all list
	for _, name := range []struct{ filter, config string }{
		{"envoy.filters.listener.tls_inspector", "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"},
		{"envoy.filters.listener.http_inspector", "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"},
	} {
		all = append(all, append(extension(name.filter, name.config), set("filter_disabled", disabled)))
	}
	return all
}

// toPorts returns a predicate that matches connections to the ports. There must be at
// least one.
func toPorts(text string) object {
	ports, err := interception.ParsePortRanges(text)
	if err != nil || len(ports) == 0 {
		panic("ports that Settings.Validate has passed: " + text)
	}
	var rules list
	for _, r := range ports {
		rules = append(rules, object{set("destination_port_range", object{
			set("start", int(r.First)), set("end", int(r.Last)+1), // the end is exclusive
		})})
	}
	if len(rules) == 1 {
		return rules[0].(object)
	}
	return object{set("or_match", object{set("rules", rules)})}
}

func (b builder) tcpChain(name, cluster string, log []field) object {
	config := []field{
		set("stat_prefix", cluster),
		set("cluster", cluster),
		explained("Envoy closes idle connections after an hour unless told otherwise; without a proxy nobody would.",
			"idle_timeout", time.Duration(0)),
	}
	return object{set("name", name), set("filters", list{extension(
		"envoy.filters.network.tcp_proxy", "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
		append(config, log...)...,
	)})}
}

// blackHoleChain returns a chain that closes connections that match.
func (b builder) blackHoleChain(name, why string, match ...field) object {
	return append(b.tcpChain(name, blackHoleCluster, b.wholeLog()), explained(why, "filter_chain_match", object(match)))
}

const keepaliveReason = "The application's own keepalive ends here: Envoy's keeps both connections known to NATs and load balancers."

// keepaliveOptions returns those of a listener's socket, which accepted ones
// inherit.
func (b builder) keepaliveOptions() list {
	const (
		soKeepalive                             = 9
		ipprotoTCP                              = 6
		tcpKeepIdle, tcpKeepIntvl, tcpKeepCount = 4, 5, 6
	)
	return list{
		socketOption("SO_KEEPALIVE", solSocket, soKeepalive, 1),
		socketOption("TCP_KEEPIDLE", ipprotoTCP, tcpKeepIdle, b.Keepalive.TimeSeconds),
		socketOption("TCP_KEEPINTVL", ipprotoTCP, tcpKeepIntvl, b.Keepalive.IntervalSeconds),
		socketOption("TCP_KEEPCNT", ipprotoTCP, tcpKeepCount, b.Keepalive.Probes),
	}
}

const solSocket = 1

// marked gives the packets of a socket a mark.
func marked(mark uint32) object {
	const soMark = 36
	return socketOption("SO_MARK", solSocket, soMark, mark)
}

// socketOption sets an option of a socket. The numbers are Linux's on amd64 and
// arm64.
func socketOption(description string, level, name int, value uint32) object {
	return object{
		set("description", description), set("level", level), set("name", name), set("int_value", int(value)),
	}
}
