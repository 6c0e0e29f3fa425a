package bootstrap

import (
	"math"
	"time"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlymutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	preservecasev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/header_formatters/preserve_case/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// This file makes Envoy's HTTP connection manager, which is a reverse proxy by
// nature, carry requests and answers on as they are.

const (
	maxHeadersKb = 8192 // the most that Envoy takes for all headers of a message
	// maxHeaders of a message; Envoy's own is 100.
	maxHeaders = 100_000
	// maxStreams of an HTTP/2 connection: the most that the protocol has (RFC 9113, 5.1.1).
	maxStreams = math.MaxInt32
)

// upgrades are the values of Upgrade that Envoy is to carry on; it answers any
// other with 403. h2c is not among them: Envoy takes the header away, and the
// server goes on with HTTP/1.1, as any server may (RFC 9110, 7.8).
var upgrades = []string{"websocket", "CONNECT", "SPDY/3.1", "tcp"}

// httpChain takes plain HTTP/1.1 and HTTP/2. HTTP/1.0 is left to TCP: Envoy
// would carry it on as HTTP/1.1, and refuses it without a Host header.
func (b *builder) httpChain(cluster string) *listenerv3.FilterChain {
	chain := b.managed("http", b.transparent(cluster))
	chain.FilterChainMatch = &listenerv3.FilterChainMatch{
		TransportProtocol: "raw_buffer", ApplicationProtocols: []string{"http/1.1", "h2c"},
	}
	return chain
}

func (b *builder) transparent(cluster string) *hcmv3.HttpConnectionManager {
	never := durationpb.New(0)
	manager := &hcmv3.HttpConnectionManager{
		StatPrefix:                 cluster,
		AccessLog:                  b.accessLog(),
		GenerateRequestId:          wrapperspb.Bool(false),
		PreserveExternalRequestId:  true,
		SkipXffAppend:              true,
		ServerHeaderTransformation: hcmv3.HttpConnectionManager_PASS_THROUGH,
		Proxy_100Continue:          true,
		MaxRequestHeadersKb:        wrapperspb.UInt32(maxHeadersKb),
		StreamIdleTimeout:          never,
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			IdleTimeout: never, MaxHeadersCount: wrapperspb.UInt32(maxHeaders),
		},
		HttpProtocolOptions:           b.http1(false),
		Http2ProtocolOptions:          http2(),
		EarlyHeaderMutationExtensions: []*corev3.TypedExtensionConfig{b.noteForm()},
		HttpFilters:                   []*hcmv3.HttpFilter{b.forgetForm(), b.router()},
		RouteSpecifier:                &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: passthroughRoutes(cluster)},
	}
	for _, upgrade := range upgrades {
		manager.UpgradeConfigs = append(manager.UpgradeConfigs, &hcmv3.HttpConnectionManager_UpgradeConfig{UpgradeType: upgrade})
	}
	return manager
}

// http1 keeps the spelling of headers and of the status line, and trailers. A
// whole URL as the target is kept only if it is told to make one of any target.
func (b *builder) http1(wholeURL bool) *corev3.Http1ProtocolOptions {
	return &corev3.Http1ProtocolOptions{
		EnableTrailers:        true,
		SendFullyQualifiedUrl: wholeURL,
		HeaderKeyFormat: &corev3.Http1ProtocolOptions_HeaderKeyFormat{
			HeaderFormat: &corev3.Http1ProtocolOptions_HeaderKeyFormat_StatefulFormatter{
				StatefulFormatter: &corev3.TypedExtensionConfig{
					Name:        "preserve_case",
					TypedConfig: b.typed(&preservecasev3.PreserveCaseFormatterConfig{ForwardReasonPhrase: true}),
				},
			},
		},
	}
}

func http2() *corev3.Http2ProtocolOptions {
	return &corev3.Http2ProtocolOptions{MaxConcurrentStreams: wrapperspb.UInt32(maxStreams), AllowConnect: true}
}

// unused is how long a connection to a server is kept without a request.
// Envoy does not end it with its client's connection, though nobody else may
// use it (envoyproxy/envoy#37617): kept for ever, each client would leave one
// behind, until the ports of 127.0.0.6, or the server, have no more. It is
// less than servers wait, so that none closes as a request comes.
const unused = time.Second

// upstreamHTTP is the key of a cluster's HTTP options.
const upstreamHTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// upstreamOptions speak to the server the version of HTTP that the client
// spoke.
func (b *builder) upstreamOptions(v variant) *anypb.Any {
	common := &corev3.HttpProtocolOptions{
		IdleTimeout:          durationpb.New(unused),
		MaxHeadersCount:      wrapperspb.UInt32(maxHeaders),
		MaxResponseHeadersKb: wrapperspb.UInt32(maxHeadersKb),
	}
	if v.once {
		common.MaxRequestsPerConnection = wrapperspb.UInt32(1)
	}
	return b.typed(&httpv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: common,
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_UseDownstreamProtocolConfig{
			UseDownstreamProtocolConfig: &httpv3.HttpProtocolOptions_UseDownstreamHttpConfig{
				HttpProtocolOptions: b.http1(v.wholeURL), Http2ProtocolOptions: http2(),
			},
		},
	})
}

// Envoy adds x-forwarded-proto to every request that has none, and makes an
// origin form of every target. So what a request looked like is noted in two
// headers of ours before Envoy changes it, chooses the route, and is forgotten
// with the header that Envoy added before the request leaves.
const (
	// formHeader is the version, the scheme where the target was a whole URL,
	// and Connection: "HTTP/1.1 http -", "HTTP/1.1 - close".
	formHeader  = "x-shunt-form"
	protoHeader = "x-shunt-proto" // the client's own x-forwarded-proto

	forwardedProto = "x-forwarded-proto"
	wholeURLForm   = "HTTP/1.1 http" // and https
	lastForm       = " close"
)

func (b *builder) noteForm() *corev3.TypedExtensionConfig {
	return &corev3.TypedExtensionConfig{
		Name: "note_form",
		TypedConfig: b.typed(&earlymutationv3.HeaderMutation{Mutations: []*mutationv3.HeaderMutation{
			overwrite(formHeader, "%PROTOCOL% %REQ(:SCHEME)% %REQ(CONNECTION)%"),
			remove(protoHeader),
			overwrite(protoHeader, "%REQ("+forwardedProto+")%"),
		}}),
	}
}

func (b *builder) forgetForm() *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{
		Name: "envoy.filters.http.header_mutation",
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: b.typed(&headermutationv3.HeaderMutation{
			Mutations: &headermutationv3.Mutations{RequestMutations: []*mutationv3.HeaderMutation{
				remove(formHeader),
				remove(forwardedProto),
				overwrite(forwardedProto, "%REQ("+protoHeader+")%"),
				remove(protoHeader),
			}},
		})},
	}
}

func remove(header string) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Remove{Remove: header}}
}

// overwrite sets a header, unless the value comes out empty.
func overwrite(header, value string) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: header, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}}}
}

// passthroughRoutes send any request to the cluster, or to a twin.
func passthroughRoutes(cluster string) *routev3.RouteConfiguration {
	to := func(v variant, match *routev3.RouteMatch) *routev3.Route {
		return &routev3.Route{Match: match, Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster + v.suffix},
			Timeout:          durationpb.New(0),
		}}}
	}
	form := func(matcher *matcherv3.StringMatcher) *routev3.RouteMatch {
		match := anyTarget()
		match.Headers = []*routev3.HeaderMatcher{{
			Name: formHeader, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: matcher},
		}}
		return match
	}
	connect := &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_ConnectMatcher_{ConnectMatcher: &routev3.RouteMatch_ConnectMatcher{}}}
	return &routev3.RouteConfiguration{
		Name: cluster,
		VirtualHosts: []*routev3.VirtualHost{{
			Name: cluster, Domains: []string{"*"},
			Routes: []*routev3.Route{
				to(usual, connect),
				to(absoluteForm, form(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: wholeURLForm}})),
				to(lastRequest, form(&matcherv3.StringMatcher{
					MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: lastForm}, IgnoreCase: true,
				})),
				to(usual, anyTarget()),
			},
		}},
	}
}

func anyTarget() *routev3.RouteMatch {
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: ""}}
}
