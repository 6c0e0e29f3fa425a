package envoy

import (
	"fmt"
	"math"
	"net/netip"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// Host is what the kernel and the network namespace allow Envoy.
type Host struct {
	// IPv6 reports whether the namespace has IPv6. If the kernel has none, Envoy
	// cannot even read an IPv6 address.
	IPv6 bool
	// BindToLoopback reports whether Envoy may bind a socket to lo, as of Linux
	// 5.7. Before, Envoy cannot make a connection that asks for it.
	BindToLoopback bool
	// NodeAddresses are those from which kubelet may probe the pod.
	NodeAddresses []netip.Addr
}

// Bootstrap returns Envoy's configuration for the connections that spec sends to
// it. With ModeNone they are those that anybody else sends. The settings must have
// passed Validate.
func Bootstrap(mode interception.Mode, spec interception.Spec, settings Settings, host Host) []byte {
	b := builder{Settings: settings, Host: host, mode: mode, spec: spec, families: []family{familyIPv4}}
	if host.IPv6 {
		b.families = append(b.families, familyIPv6)
	}
	document := object{explained("It can stop Envoy and has no authentication: for processes in the pod only.",
		"admin", object{set("address", address(loopback, interception.AdminPort))})}
	document = append(document, b.statsConfig()...)
	document = append(document, b.overloadManager()...)
	if b.readsHTTP() {
		document = append(document, explained("A client may cancel as many requests as it likes; how many it has at once is limited below.",
			"layered_runtime", object{set("layers", list{object{
				set("name", "static"), set("static_layer", object{set("overload.premature_reset_total_stream_count", math.MaxUint32)}),
			}})}))
	}
	document = append(document, b.markedSockets()...)
	document = append(document, set("static_resources", object{
		set("listeners", b.listeners()),
		set("clusters", b.clusters()),
	}))
	return fmt.Appendf(nil, "# Envoy's bootstrap, written by shunt-init for interception mode %s.\n"+
		"# Settings that are not the default: %s\n%s", mode, settings, printYAML(document))
}

// builder makes the parts of a bootstrap.
type builder struct {
	Settings
	Host
	mode     interception.Mode
	spec     interception.Spec
	families []family
}

// markedSockets marks the sockets that Envoy connects, but for those of clusters with
// options of their own, which are the hops to the app. Without conntrack the rules
// know Envoy's packets by nothing else.
func (b builder) markedSockets() []field {
	if !b.spec.NoConntrack {
		return nil
	}
	return []field{explained("The rules know Envoy's own connections by this mark.",
		"cluster_manager", object{set("upstream_bind_config", object{set("socket_options", list{marked(b.spec.Marks().Proxy)})})})}
}

// readsHTTP reports whether Envoy detects HTTP on any port.
func (b builder) readsHTTP() bool { return b.InboundHTTPPorts != "" || b.OutboundHTTPPorts != "" }

// family is what differs between IPv4 and IPv6.
type family struct {
	suffix     string // of listener names, as Istio names them
	cluster    string // of the inbound cluster's name
	anyAddress string // the address of all interfaces
	loopback   string
	// loopbackRanges are what no other host may reach.
	loopbackRanges []string
	// inboundSource is the client's address that the app sees in REDIRECT. By it
	// the rules recognize the proxy's connections to the app.
	inboundSource string
}

var (
	familyIPv4 = family{
		suffix: "", cluster: "Ipv4", anyAddress: "0.0.0.0", loopback: loopback, loopbackRanges: []string{"127.0.0.0/8"},
		inboundSource: "127.0.0.6",
	}
	familyIPv6 = family{
		suffix: "_v6", cluster: "Ipv6", anyAddress: "::", loopback: "::1", loopbackRanges: []string{"::1/128", "::ffff:127.0.0.0/104"},
		inboundSource: "::6",
	}
)

// loopback is IPv4 in a pod of IPv6 too: its lo always has it.
const loopback = "127.0.0.1"

func socketAddress(host string, port uint16) object {
	return object{set("address", host), set("port_value", int(port))}
}

func address(host string, port uint16) object {
	return object{set("socket_address", socketAddress(host, port))}
}

func ranges(cidrs ...string) list {
	var all list
	for _, cidr := range cidrs {
		prefix := netip.MustParsePrefix(cidr)
		all = append(all, object{set("address_prefix", prefix.Addr().String()), set("prefix_len", prefix.Bits())})
	}
	return all
}

// only returns the range of one address.
func only(host string) list {
	addr := netip.MustParseAddr(host)
	return ranges(netip.PrefixFrom(addr, addr.BitLen()).String())
}

// bufferLimit is how many bytes Envoy holds for a receiver that does not read, in
// each direction of a connection. Envoy's default is 1 MiB: with it, 200 clients
// that did not read took Envoy from 64 to 184 MB; with this limit, to 76. A fast
// stream was no slower.
const bufferLimit = 32 << 10

var bufferLimited = set("per_connection_buffer_limit_bytes", bufferLimit)

// unlimited lifts Envoy's limit of 1024 connections per cluster: all of the pod's
// connections share one cluster.
func unlimited() object {
	return object{set("thresholds", list{object{
		set("max_connections", math.MaxUint32), set("max_pending_requests", math.MaxUint32),
		set("max_requests", math.MaxUint32), set("max_retries", math.MaxUint32),
	}})}
}
