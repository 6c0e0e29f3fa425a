package bootstrap

import (
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	originalsrcv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_src/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// listeners are, for each family: inbound and outbound, health and metrics,
// and those for DNS where it is captured.
func (b *builder) listeners() []*listenerv3.Listener {
	var all []*listenerv3.Listener
	for _, f := range b.families() {
		all = append(all, b.inbound(f), b.outbound(f), b.health(f), b.metrics(f))
		if b.DNSPort != 0 {
			all = append(all, b.dnsUDP(f), b.dnsTCP(f))
		}
	}
	return all
}

func (b *builder) inbound(f family) *listenerv3.Listener {
	l := b.passthrough(listener{
		name: "virtualInbound" + f.suffix, direction: corev3.TrafficDirection_INBOUND, family: f,
		port: b.InboundPort, cluster: inboundCluster(f), health: healthToOutbound,
	})
	if b.Mode == interception.ModeTProxy {
		// The packets still carry the address that they were sent to, which is
		// not one of this socket's: only a transparent socket takes them.
		l.Transparent = wrapperspb.Bool(true)
		// Ahead of the inspectors: when those run out of time, Envoy leaves out
		// all filters that would have come after them.
		l.ListenerFilters = slices.Insert(l.ListenerFilters, 1, &listenerv3.ListenerFilter{
			Name: "envoy.filters.listener.original_src",
			ConfigType: &listenerv3.ListenerFilter_TypedConfig{
				TypedConfig: b.typed(&originalsrcv3.OriginalSrc{Mark: b.Mark}),
			},
		})
	}
	return l
}

// outbound is not transparent in TPROXY either, unlike Istio's: outbound
// connections always come by nat REDIRECT, to an address of this socket.
func (b *builder) outbound(f family) *listenerv3.Listener {
	return b.passthrough(listener{
		name: "virtualOutbound" + f.suffix, direction: corev3.TrafficDirection_OUTBOUND, family: f,
		port: b.OutboundPort, cluster: passthroughCluster, health: healthAnswer,
	})
}

// listener says what differs between the pass-through listeners.
type listener struct {
	name      string
	direction corev3.TrafficDirection
	family    family
	port      uint16
	cluster   string       // that carries connections on
	health    healthAction // of a health check that came this far
}

// passthrough takes connections to any destination and carries them on by the
// cluster; those to the port itself end in the black hole. The listener does
// not have use_original_dst, which would hand a connection to another host's
// port 15021 to the health listener.
//
//	destination               | first bytes             | filter chain
//	loopback, own port        | (from loopback only)    | health
//	any other, own port       |                         | blackhole
//	any, a server-first port  | not looked at           | tcp
//	any                       | HTTP/1.1, HTTP/2 (h2c)  | http
//	any                       | TLS ClientHello         | tls
//	any                       | others, or none in time | tcp
func (b *builder) passthrough(l listener) *listenerv3.Listener {
	own := wrapperspb.UInt32(uint32(l.port))
	loop := b.tcpProxy("blackhole", blackHoleCluster)
	loop.FilterChainMatch = &listenerv3.FilterChainMatch{DestinationPort: own}
	chains := []*listenerv3.FilterChain{b.healthChain(l), loop}
	if b.ProtocolDetection {
		tls := b.tcpProxy("tls", l.cluster)
		tls.FilterChainMatch = &listenerv3.FilterChainMatch{TransportProtocol: "tls"}
		chains = append(chains, b.httpChain(l.cluster), tls)
	}
	return &listenerv3.Listener{
		Name:             l.name,
		TrafficDirection: l.direction,
		Metadata:         listenerNames(l),
		Address:          address(l.family.any, l.port),
		ListenerFilters: append([]*listenerv3.ListenerFilter{{
			Name:       "envoy.filters.listener.original_dst",
			ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: b.typed(&originaldstv3.OriginalDst{})},
		}}, b.inspectors()...),
		ListenerFiltersTimeout:           durationpb.New(detectionTimeout),
		ContinueOnListenerFiltersTimeout: true,
		FilterChains:                     chains,
		// Envoy closes what no chain takes, and does not go back to a less
		// specific one: plain TCP is not a chain among the others.
		DefaultFilterChain: b.tcpProxy("tcp", l.cluster),
		SocketOptions:      []*corev3.SocketOption{keepAlive()},
	}
}

// detectionTimeout is how long a client may take to send the first bytes of
// its protocol. A connection on which it does not is carried on as TCP, so that
// this is the most that a server that speaks first can be delayed on a port
// that nobody knows it by. A client that speaks first sends its bytes right
// behind the last packet of the handshake; but on a busy node the two may be
// handled a tenth of a second apart, and a request taken for TCP has no
// telemetry and cannot be told to go when the pod drains.
const detectionTimeout = 500 * time.Millisecond

func (b *builder) tcpProxy(chain, cluster string) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{
		Name: chain,
		Filters: []*listenerv3.Filter{{
			Name: "envoy.filters.network.tcp_proxy",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: b.typed(&tcpproxyv3.TcpProxy{
				StatPrefix:       cluster,
				ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: cluster},
				// Envoy closes idle connections after an hour unless told
				// otherwise; without a proxy nobody would.
				IdleTimeout: durationpb.New(0),
				AccessLog:   b.accessLog(),
			})},
		}},
	}
}

// keepAlive makes the kernel probe the client of an idle connection, which the
// application's own probes no longer reach: they end at the proxy. Without it
// a client that went away without a word would hold its connection for ever.
// Accepted sockets inherit the option; the numbers are Linux's SOL_SOCKET and
// SO_KEEPALIVE on amd64 and arm64.
func keepAlive() *corev3.SocketOption {
	const solSocket, soKeepAlive = 1, 9
	return &corev3.SocketOption{
		Description: "keepalive",
		Level:       solSocket,
		Name:        soKeepAlive,
		Value:       &corev3.SocketOption_IntValue{IntValue: 1},
		State:       corev3.SocketOption_STATE_PREBIND,
	}
}
