package bootstrap

import (
	"net/http"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	healthcheckv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Paths that the proxy serves.
const (
	HealthPath  = "/healthz/ready"    // 200 when live, on Options.HealthPort
	MetricsPath = "/stats/prometheus" // on Options.MetricsPort
)

// loopback is IPv4 in a pod of IPv6 too: its lo always has it.
const loopback = "127.0.0.1"

// admin can stop the proxy and change its log level, and asks nobody who they
// are: it is for processes in the pod only.
func (b *builder) admin() *bootstrapv3.Admin {
	return &bootstrapv3.Admin{Address: address(loopback, b.AdminPort)}
}

// health answers by itself, and so only once the proxy takes connections: its
// listeners open together when it is live. It says 503 once told to fail
// (/healthcheck/fail of the admin interface) or while it drains.
func (b *builder) health(f family) *listenerv3.Listener {
	filter := &hcmv3.HttpFilter{
		Name: "envoy.filters.http.health_check",
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: b.typed(&healthcheckv3.HealthCheck{
			PassThroughMode: wrapperspb.Bool(false),
			Headers: []*routev3.HeaderMatcher{{
				Name: ":path",
				HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
					MatchPattern: &matcherv3.StringMatcher_Exact{Exact: HealthPath},
				}},
			}},
		})},
	}
	return b.http("health"+f.suffix, f, b.HealthPort, []*hcmv3.HttpFilter{filter}, nil)
}

// metrics lets one path of the admin interface out, and no other.
func (b *builder) metrics(f family) *listenerv3.Listener {
	route := &routev3.Route{
		Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: MetricsPath}},
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: adminCluster},
		}},
	}
	return b.http("metrics"+f.suffix, f, b.MetricsPort, nil, []*routev3.Route{route})
}

// http is a listener that serves the given filters and routes, and for
// anything else says that it is not found.
func (b *builder) http(name string, f family, port uint16, filters []*hcmv3.HttpFilter, routes []*routev3.Route) *listenerv3.Listener {
	notFound := &routev3.Route{
		Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: http.StatusNotFound}},
	}
	manager := &hcmv3.HttpConnectionManager{
		StatPrefix:        name,
		GenerateRequestId: wrapperspb.Bool(false),
		HttpFilters: append(filters, &hcmv3.HttpFilter{
			Name:       "envoy.filters.http.router",
			ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: b.typed(&routerv3.Router{})},
		}),
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
			Name: name,
			VirtualHosts: []*routev3.VirtualHost{{
				Name: name, Domains: []string{"*"}, Routes: append(routes, notFound),
			}},
		}},
	}
	return &listenerv3.Listener{
		Name:    name,
		Address: address(f.any, port),
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name:       "envoy.filters.network.http_connection_manager",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: b.typed(manager)},
		}}}},
	}
}
