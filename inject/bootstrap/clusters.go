package bootstrap

import (
	"math"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/anypb"
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

// variant is a twin of a pass-through cluster, for requests that need what is
// a setting of a cluster and not of a request. In logs and metrics all twins
// are the one.
type variant struct {
	suffix   string // of the name
	wholeURL bool   // the target is sent as a whole URL
	once     bool   // the connection ends with its first answer
}

var (
	usual = variant{}
	// absoluteForm is for requests whose target is a whole URL, as clients of
	// an HTTP proxy send it (RFC 9112, 3.2.2).
	absoluteForm = variant{suffix: "AbsoluteForm", wholeURL: true}
	// lastRequest is for requests that say that their connection ends.
	lastRequest = variant{suffix: "LastRequest", once: true}
)

// connectTimeout is Istio's for its pass-through clusters.
const connectTimeout = 10 * time.Second

func (b *builder) clusters() []*clusterv3.Cluster {
	all := []*clusterv3.Cluster{b.fixed(adminCluster, connectTimeout, address(loopback, b.AdminPort))}
	for _, f := range b.families() {
		var source *corev3.BindConfig
		if b.Mode == interception.ModeRedirect {
			source = &corev3.BindConfig{SourceAddress: socketAddress(f.inboundSource, 0)}
		}
		all = append(all, b.passthroughs(inboundCluster(f), source)...)
		all = append(all, b.healthClusters(f)...)
	}
	all = append(all, b.passthroughs(passthroughCluster, nil)...)
	if b.DNSPort != 0 {
		all = append(all, b.resolvers())
	}
	return append(all, blackHole())
}

// passthroughs are the cluster that dials where the connection was going, and
// its twins where requests are read.
func (b *builder) passthroughs(name string, source *corev3.BindConfig) []*clusterv3.Cluster {
	if !b.ProtocolDetection {
		return []*clusterv3.Cluster{originalDestination(name, source)}
	}
	var all []*clusterv3.Cluster
	for _, v := range []variant{usual, absoluteForm, lastRequest} {
		c := originalDestination(name+v.suffix, source)
		if v != usual {
			c.AltStatName = name
		}
		c.TypedExtensionProtocolOptions = map[string]*anypb.Any{upstreamHTTP: b.upstreamOptions(v)}
		all = append(all, c)
	}
	return all
}

// originalDestination dials the address that the connection was going to.
func originalDestination(name string, source *corev3.BindConfig) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST},
		LbPolicy:             clusterv3.Cluster_CLUSTER_PROVIDED,
		ConnectTimeout:       durationpb.New(connectTimeout),
		CircuitBreakers:      unlimited(),
		UpstreamBindConfig:   source,
		// As in keepAlive, for the far side of the proxy.
		UpstreamConnectionOptions: &clusterv3.UpstreamConnectionOptions{TcpKeepalive: &corev3.TcpKeepalive{}},
		// One connection to the server for each of a client's, never shared:
		// what a server knows by connection, such as who logged in by NTLM,
		// stays with its client.
		ConnectionPoolPerDownstreamConnection: true,
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

// fixed dials one address.
func (b *builder) fixed(name string, timeout time.Duration, at *corev3.Address) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(timeout),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: name,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: at}},
			}}}},
		},
	}
}
