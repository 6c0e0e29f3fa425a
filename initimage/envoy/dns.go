package envoy

import (
	"encoding/json"
	"net/netip"
	"time"
)

// DNS queries are forwarded to the pod's resolvers, whole and unread, so that every
// type of record and every extension works. The resolvers are known only in the
// pod: shunt-init lists them in a file.

// resolversCluster is the name of the cluster of the pod's resolvers.
const resolversCluster = "dns"

// dnsServerPort is the port of DNS servers, udp and tcp (RFC 1035, 4.2).
const dnsServerPort = 53

// maxDatagram is the most that a UDP datagram can hold. With Envoy's default of
// 1500 bytes, it would drop the large answers that EDNS allows (RFC 6891, 6.2.5).
const maxDatagram = 65535

// dnsIdle is how long an answer may take. Resolvers retry after 5 seconds
// (resolv.conf(5)).
const dnsIdle = 10 * time.Second

// dnsHost returns where redirected queries arrive: on loopback, but for those that
// come in by the interface of a virtual machine, which are redirected to that
// interface's address.
func (b builder) dnsHost(f family) string {
	if len(b.spec.VirtualInterfaces) > 0 {
		return f.anyAddress
	}
	return f.loopback
}

func (b builder) dnsUDP(f family) object {
	large := object{set("max_rx_datagram_size", maxDatagram)}
	at := append(socketAddress(b.dnsHost(f), b.spec.DNS.Port), set("protocol", "UDP"))
	return object{
		set("name", "dns_udp"+f.suffix),
		set("address", object{set("socket_address", at)}),
		set("udp_listener_config", object{set("downstream_socket_config", large)}),
		set("listener_filters", list{extension("envoy.filters.udp_listener.udp_proxy",
			"envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig",
			set("stat_prefix", resolversCluster),
			set("idle_timeout", dnsIdle),
			set("upstream_socket_config", large),
			explained("A query that was not answered must not go to the same resolver again.", "use_per_packet_load_balancing", true),
			set("matcher", object{set("on_no_match", object{set("action",
				extension("route", "envoy.extensions.filters.udp.udp_proxy.v3.Route", set("cluster", resolversCluster)))})}),
		)}),
	}
}

func (b builder) dnsTCP(f family) object {
	name := "dns_tcp" + f.suffix
	return object{
		set("name", name),
		set("address", address(b.dnsHost(f), b.spec.DNS.Port)),
		set("metadata", listenerNames(name, outboundDirection)),
		set("filter_chains", list{b.tcpChain("dns", resolversCluster, b.wholeLog())}),
		set("socket_options", b.keepaliveOptions()),
	}
}

func resolvers() object {
	return object{
		set("name", resolversCluster),
		set("type", "EDS"),
		set("connect_timeout", connectTimeout),
		set("circuit_breakers", unlimited()),
		set("eds_cluster_config", object{set("eds_config", object{
			set("resource_api_version", "V3"),
			set("path_config_source", object{set("path", SharedDirectory+"/"+ResolversFile)}),
		})}),
	}
}

// Resolvers prints nameservers as Envoy reads the endpoints of a cluster from
// ResolversFile: a DiscoveryResponse with one ClusterLoadAssignment.
func Resolvers(servers []netip.Addr) []byte {
	type members map[string]any
	endpoints := []members{}
	for _, server := range servers {
		endpoints = append(endpoints, members{"endpoint": members{"address": members{
			"socket_address": members{"address": server.String(), "port_value": dnsServerPort},
		}}})
	}
	text, err := json.Marshal(members{"resources": []members{{
		"@type":        "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
		"cluster_name": resolversCluster,
		"endpoints":    []members{{"lb_endpoints": endpoints}},
	}}})
	if err != nil {
		panic("plain values always encode: " + err.Error())
	}
	return append(text, '\n')
}
