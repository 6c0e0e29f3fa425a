package bootstrap

import (
	"time"

	xds "github.com/cncf/xds/go/xds/core/v3"
	matcher "github.com/cncf/xds/go/xds/type/matcher/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	udpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/udp/udp_proxy/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// DNS queries are carried on to the pod's resolvers, whole and unread, so that
// every type of record and every extension works. The resolvers are known in
// the pod only: shunt-init lists them in a file.

// ResolversFile lists the pod's resolvers: a DiscoveryResponse of Envoy's API
// with one ClusterLoadAssignment named ResolversCluster. shunt-init --share
// writes it.
const ResolversFile = SharedDirectory + "/resolvers.json"

// SharedDirectory is where shunt-init leaves for the proxy what is known in
// the pod only.
const SharedDirectory = "/shunt"

// ResolversCluster is the name of the cluster of the pod's resolvers.
const ResolversCluster = "dns"

// maxDatagram is the most that a UDP datagram can hold. Envoy's own limit is
// 1500 bytes: it would drop the large answers that EDNS allows (RFC 6891, 6.2.5).
const maxDatagram = 65535

// dnsIdle is how long an answer may take. Resolvers that retry do so after 5
// seconds (resolv.conf(5)).
const dnsIdle = 10 * time.Second

// dnsHost is where queries arrive that are redirected to this host: on
// loopback, but for those that came in by an interface.
func (b *builder) dnsHost(f family) string {
	if b.DNSAllInterfaces {
		return f.any
	}
	return f.loopback
}

func (b *builder) dnsUDP(f family) *listenerv3.Listener {
	name := "dns_udp" + f.suffix
	large := &corev3.UdpSocketConfig{MaxRxDatagramSize: wrapperspb.UInt64(maxDatagram)}
	proxy := &udpproxyv3.UdpProxyConfig{
		StatPrefix:           ResolversCluster,
		IdleTimeout:          durationpb.New(dnsIdle),
		UpstreamSocketConfig: large,
		// Each query goes to the next resolver: the repetition of one that
		// was not answered must not go to the same again.
		UsePerPacketLoadBalancing: true,
		RouteSpecifier:            &udpproxyv3.UdpProxyConfig_Matcher{Matcher: b.toResolvers()},
	}
	return &listenerv3.Listener{
		Name:              name,
		Address:           udpAddress(b.dnsHost(f), b.DNSPort),
		UdpListenerConfig: &listenerv3.UdpListenerConfig{DownstreamSocketConfig: large},
		ListenerFilters: []*listenerv3.ListenerFilter{{
			Name:       "envoy.filters.udp_listener.udp_proxy",
			ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: b.typed(proxy)},
		}},
	}
}

// toResolvers is a matcher that matches everything.
func (b *builder) toResolvers() *matcher.Matcher {
	return &matcher.Matcher{OnNoMatch: &matcher.Matcher_OnMatch{OnMatch: &matcher.Matcher_OnMatch_Action{
		Action: &xds.TypedExtensionConfig{
			Name:        "route",
			TypedConfig: b.typed(&udpproxyv3.Route{Cluster: ResolversCluster}),
		},
	}}}
}

func (b *builder) dnsTCP(f family) *listenerv3.Listener {
	return &listenerv3.Listener{
		Name:          "dns_tcp" + f.suffix,
		Address:       address(b.dnsHost(f), b.DNSPort),
		Metadata:      listenerNames(listener{name: "dns_tcp" + f.suffix, direction: corev3.TrafficDirection_OUTBOUND}),
		FilterChains:  []*listenerv3.FilterChain{b.tcpProxy("dns", ResolversCluster)},
		SocketOptions: []*corev3.SocketOption{keepAlive()},
	}
}

func (b *builder) resolvers() *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 ResolversCluster,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		ConnectTimeout:       durationpb.New(connectTimeout),
		CircuitBreakers:      unlimited(),
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: &corev3.ConfigSource{
			ResourceApiVersion: corev3.ApiVersion_V3,
			ConfigSourceSpecifier: &corev3.ConfigSource_PathConfigSource{
				PathConfigSource: &corev3.PathConfigSource{Path: ResolversFile},
			},
		}},
	}
}
