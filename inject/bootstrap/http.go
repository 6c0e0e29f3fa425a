package bootstrap

import (
	"net/http"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// MetricsPath is what the proxy serves on Options.MetricsPort.
const MetricsPath = "/stats/prometheus"

// loopback is IPv4 in a pod of IPv6 too: its lo always has it.
const loopback = "127.0.0.1"

// admin can stop the proxy and change its log level, and asks nobody who they
// are: it is for processes in the pod only.
func (b *builder) admin() *bootstrapv3.Admin {
	return &bootstrapv3.Admin{Address: address(loopback, b.AdminPort)}
}

// metrics lets one path of the admin interface out, and no other.
func (b *builder) metrics(f family) *listenerv3.Listener {
	return &listenerv3.Listener{
		Name:         "metrics" + f.suffix,
		Address:      address(f.any, b.MetricsPort),
		FilterChains: []*listenerv3.FilterChain{b.managed("metrics", b.page("metrics", MetricsPath, toCluster(adminCluster)))},
	}
}

// page is what a server does that answers one path, and for any other says
// that it is not found.
func (b *builder) page(name, path string, answer *routev3.Route, filters ...*hcmv3.HttpFilter) *hcmv3.HttpConnectionManager {
	answer.Match = &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: path}}
	other := status(http.StatusNotFound)
	other.Match = &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
	return &hcmv3.HttpConnectionManager{
		StatPrefix:        name,
		GenerateRequestId: wrapperspb.Bool(false),
		HttpFilters:       append(filters, b.router()),
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
			Name:         name,
			VirtualHosts: []*routev3.VirtualHost{{Name: name, Domains: []string{"*"}, Routes: []*routev3.Route{answer, other}}},
		}},
	}
}

func toCluster(name string) *routev3.Route {
	return &routev3.Route{Action: &routev3.Route_Route{Route: &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: name},
	}}}
}

func status(code uint32) *routev3.Route {
	return &routev3.Route{Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: code}}}
}

// router is the last HTTP filter. It is kept from adding headers that tell of
// the proxy.
func (b *builder) router() *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{
		Name:       "envoy.filters.http.router",
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: b.typed(&routerv3.Router{SuppressEnvoyHeaders: true})},
	}
}

// managed is a filter chain whose connections an HTTP connection manager takes.
func (b *builder) managed(chain string, manager *hcmv3.HttpConnectionManager) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{
		Name: chain,
		Filters: []*listenerv3.Filter{{
			Name:       "envoy.filters.network.http_connection_manager",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: b.typed(manager)},
		}},
	}
}
