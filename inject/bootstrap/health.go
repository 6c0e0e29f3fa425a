package bootstrap

import (
	"net/http"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	healthcheckv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// A health check goes through both pass-through listeners of its family, so
// that 200 means that both take connections:
//
//	kubelet ─► health :15021 ─► loopback, virtualInbound :15006 ─► loopback, virtualOutbound :15001 ─► 200
//
// It costs two connections on loopback for each check, and nothing between.

// HealthPath is what the proxy serves on Options.HealthPort: 200 while both
// pass-through listeners take connections. It is 503 when one does not, and
// once the proxy was told to fail (/healthcheck/fail of the admin interface).
const HealthPath = "/healthz/ready"

// healthTimeout of each hop is less than the 3 seconds that the sidecar's
// probes wait.
const healthTimeout = time.Second

// healthAction is what a pass-through listener does with a health check.
type healthAction int

const (
	healthToOutbound healthAction = iota // hand it on to virtualOutbound
	healthAnswer                         // answer it
)

func healthCluster(listener string, f family) string { return "health_" + listener + f.suffix }

// health answers kubelet.
func (b *builder) health(f family) *listenerv3.Listener {
	failing := &hcmv3.HttpFilter{
		Name: "envoy.filters.http.health_check",
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: b.typed(&healthcheckv3.HealthCheck{
			PassThroughMode: wrapperspb.Bool(true),
			Headers: []*routev3.HeaderMatcher{{
				Name: ":path",
				HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
					MatchPattern: &matcherv3.StringMatcher_Exact{Exact: HealthPath},
				}},
			}},
		})},
	}
	manager := b.page("health", HealthPath, toCluster(healthCluster("inbound", f)), failing)
	return &listenerv3.Listener{
		Name:         "health" + f.suffix,
		Address:      address(f.any, b.HealthPort),
		FilterChains: []*listenerv3.FilterChain{b.managed("health", manager)},
	}
}

// healthChain takes what comes to the listener's own port from loopback by
// loopback; anybody else ends in the black hole there.
func (b *builder) healthChain(l listener) *listenerv3.FilterChain {
	answer := status(http.StatusOK)
	if l.health == healthToOutbound {
		answer = toCluster(healthCluster("outbound", l.family))
	}
	chain := b.managed("health", b.page("health_hop", HealthPath, answer))
	chain.FilterChainMatch = &listenerv3.FilterChainMatch{
		DestinationPort: wrapperspb.UInt32(uint32(l.port)),
		PrefixRanges:    only(l.family.loopback), SourcePrefixRanges: only(l.family.loopback),
	}
	return chain
}

// healthClusters dial the pass-through listeners of a family.
func (b *builder) healthClusters(f family) []*clusterv3.Cluster {
	all := []*clusterv3.Cluster{
		b.fixed(healthCluster("inbound", f), healthTimeout, address(f.loopback, b.InboundPort)),
		b.fixed(healthCluster("outbound", f), healthTimeout, address(f.loopback, b.OutboundPort)),
	}
	// A connection for each check: one that was kept would say nothing of new
	// ones.
	once := b.typed(&httpv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{MaxRequestsPerConnection: wrapperspb.UInt32(1)},
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
					HttpProtocolOptions: &corev3.Http1ProtocolOptions{},
				},
			},
		},
	})
	for _, c := range all {
		c.TypedExtensionProtocolOptions = map[string]*anypb.Any{upstreamHTTP: once}
	}
	return all
}
