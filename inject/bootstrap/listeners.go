package bootstrap

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	originalsrcv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_src/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// listeners are, for each family: inbound and outbound unless the mode is
// NONE, health and metrics.
func (b *builder) listeners() []*listenerv3.Listener {
	var all []*listenerv3.Listener
	for _, f := range b.families() {
		if b.Mode != interception.ModeNone {
			all = append(all, b.inbound(f), b.outbound(f))
		}
		all = append(all, b.health(f), b.metrics(f))
	}
	return all
}

func (b *builder) inbound(f family) *listenerv3.Listener {
	l := b.passthrough("virtualInbound"+f.suffix, corev3.TrafficDirection_INBOUND, address(f.any, b.InboundPort), inboundCluster(f))
	if b.Mode == interception.ModeTProxy {
		// The packets still carry the address that they were sent to, which is
		// not one of this socket's: only a transparent socket takes them.
		l.Transparent = wrapperspb.Bool(true)
		l.ListenerFilters = append(l.ListenerFilters, &listenerv3.ListenerFilter{
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
	return b.passthrough("virtualOutbound"+f.suffix, corev3.TrafficDirection_OUTBOUND, address(f.any, b.OutboundPort), passthroughCluster)
}

// passthrough takes connections to any destination and carries them on by the
// cluster; those to the port itself end in the black hole. The listener does
// not have use_original_dst, which would hand a connection to another host's
// port 15021 to the health listener.
func (b *builder) passthrough(name string, direction corev3.TrafficDirection, at *corev3.Address, cluster string) *listenerv3.Listener {
	loop := b.tcpProxy("blackhole", blackHoleCluster)
	loop.FilterChainMatch = &listenerv3.FilterChainMatch{
		DestinationPort: wrapperspb.UInt32(at.GetSocketAddress().GetPortValue()),
	}
	return &listenerv3.Listener{
		Name:             name,
		TrafficDirection: direction,
		Address:          at,
		ListenerFilters: []*listenerv3.ListenerFilter{{
			Name:       "envoy.filters.listener.original_dst",
			ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: b.typed(&originaldstv3.OriginalDst{})},
		}},
		FilterChains:  []*listenerv3.FilterChain{loop, b.tcpProxy("passthrough", cluster)},
		AccessLog:     []*accesslogv3.AccessLog{b.accessLog(name, direction)},
		SocketOptions: []*corev3.SocketOption{keepAlive()},
	}
}

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
