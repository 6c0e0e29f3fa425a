package bootstrap

import (
	"math"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// Names of clusters, as Istio has them in its logs and metrics.
const (
	passthroughCluster = "PassthroughCluster"
	blackHoleCluster   = "BlackHoleCluster"
	adminCluster       = "admin"
)

func inboundCluster(f family) string { return "InboundPassthroughCluster" + f.cluster }

// connectTimeout is Istio's for its pass-through clusters.
const connectTimeout = 10 * time.Second

func (b *builder) clusters() []*clusterv3.Cluster {
	all := []*clusterv3.Cluster{b.adminCluster()}
	if b.Mode == interception.ModeNone {
		return all
	}
	for _, f := range b.families() {
		inbound := originalDestination(inboundCluster(f))
		if b.Mode == interception.ModeRedirect {
			inbound.UpstreamBindConfig = &corev3.BindConfig{SourceAddress: socketAddress(f.inboundSource, 0)}
		}
		all = append(all, inbound)
	}
	return append(all, originalDestination(passthroughCluster), blackHole())
}

// originalDestination dials the address that the connection was going to.
func originalDestination(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST},
		LbPolicy:             clusterv3.Cluster_CLUSTER_PROVIDED,
		ConnectTimeout:       durationpb.New(connectTimeout),
		CircuitBreakers:      unlimited(),
		// As in keepAlive, for the far side of the proxy.
		UpstreamConnectionOptions: &clusterv3.UpstreamConnectionOptions{TcpKeepalive: &corev3.TcpKeepalive{}},
	}
}

// unlimited lifts Envoy's limit of 1024 connections a cluster: all of the
// pod's connections share one.
func unlimited() *clusterv3.CircuitBreakers {
	most := func() *wrapperspb.UInt32Value { return wrapperspb.UInt32(math.MaxUint32) }
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections: most(), MaxPendingRequests: most(), MaxRequests: most(), MaxRetries: most(),
	}}}
}

// blackHole has no endpoint: a connection that is sent there is closed.
func blackHole() *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 blackHoleCluster,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(connectTimeout),
	}
}

// adminCluster is the proxy's own administration interface.
func (b *builder) adminCluster() *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 adminCluster,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(connectTimeout),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: adminCluster,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
					Endpoint: &endpointv3.Endpoint{Address: address(loopback, b.AdminPort)},
				},
			}}}},
		},
	}
}
