package envoy

import (
	"math"
	"time"
)

// This file makes Envoy's HTTP connection manager, which is a reverse proxy by
// nature, forward requests and answers unchanged.

// maxHeaders bounds the number of headers of a message; Envoy's default is 100.
const maxHeaders = 1000

// upgrades are the values of Upgrade that Envoy forwards; it answers any other with
// 403. h2c is not among them: Envoy removes the header, and the server continues
// with HTTP/1.1, as any server may (RFC 9110, 7.8).
var upgrades = []string{"websocket", "CONNECT", "SPDY/3.1", "tcp"}

// managed returns a filter chain whose connections an HTTP connection manager handles.
func managed(chain string, manager ...field) object {
	return object{set("name", chain), set("filters", list{extension("envoy.filters.network.http_connection_manager",
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", manager...)})}
}

// httpChain handles plain HTTP/1.1 and HTTP/2. HTTP/1.0 is forwarded as TCP: Envoy
// would forward it as HTTP/1.1, and rejects it without a Host header.
func (b builder) httpChain(cluster string, log []field) object {
	var upgradeConfigs list
	for _, upgrade := range upgrades {
		upgradeConfigs = append(upgradeConfigs, object{set("upgrade_type", upgrade)})
	}
	manager := []field{
		set("stat_prefix", cluster),
		set("generate_request_id", false),
		set("preserve_external_request_id", true),
		set("skip_xff_append", true),
		set("server_header_transformation", "PASS_THROUGH"),
		set("proxy_100_continue", true),
		set("max_request_headers_kb", int(b.HTTP.MaxHeaderKB)),
		set("request_headers_timeout", time.Duration(b.HTTP.HeaderSeconds)*time.Second),
		set("stream_idle_timeout", time.Duration(0)),
		set("common_http_protocol_options", object{
			set("idle_timeout", time.Duration(0)), set("max_headers_count", maxHeaders),
		}),
		set("http_protocol_options", http1(false)),
		set("http2_protocol_options", b.http2()),
		set("upgrade_configs", upgradeConfigs),
		set("early_header_mutation_extensions", list{noteForm()}),
		set("http_filters", list{forgetForm(), router()}),
		set("route_config", passthroughRoutes(cluster)),
	}
	return managed("http", append(manager, log...)...)
}

// http1 keeps trailers, and the spelling of headers and of the status line. Envoy
// keeps a whole URL as the target only with the option that makes a whole URL of
// any target.
func http1(wholeURL bool) object {
	options := object{
		set("enable_trailers", true),
		set("allow_custom_methods", true),
		set("header_key_format", object{set("stateful_formatter", extension("preserve_case",
			"envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig",
			set("forward_reason_phrase", true)))}),
	}
	if wholeURL {
		options = append(options, set("send_fully_qualified_url", true))
	}
	return options
}

// http2 bounds what a client can make Envoy keep for a connection. Envoy's default
// windows are of 256 MiB: with them, 20,000 streams took it from 66 to 246 MB; with
// these, to 70.
func (b builder) http2() object {
	return object{
		set("max_concurrent_streams", int(b.HTTP.MaxStreams)),
		set("initial_stream_window_size", 256<<10), set("initial_connection_window_size", 1<<20),
		set("allow_connect", true),
	}
}

// unused is how long a connection to a server is kept without a request. Envoy does
// not end it with its client's connection, though nobody else may use it
// (envoyproxy/envoy#37617). Without a limit each client would leave one behind,
// until the ports of 127.0.0.6, or the server, have no more. The time is shorter
// than that of servers, so that none closes just as a request comes.
const unused = time.Second

// maxResponseHeaderKB is Envoy's maximum. A server may be the pod's own, and nobody
// else may limit its answers.
const maxResponseHeaderKB = 8192

// twin is a variant of a pass-through cluster, for requests that need what is a
// setting of a cluster and not of a request. In logs and metrics all twins have one
// name.
type twin struct {
	suffix   string // of the name
	wholeURL bool   // the target is sent as a whole URL
	once     bool   // the connection ends with its first answer
}

var (
	usual = twin{}
	// absoluteForm is for requests whose target is a whole URL, as clients of an
	// HTTP proxy send it (RFC 9112, 3.2.2).
	absoluteForm = twin{suffix: "AbsoluteForm", wholeURL: true}
	// lastRequest is for requests that end their connection.
	lastRequest = twin{suffix: "LastRequest", once: true}
)

// httpProtocolOptions returns the HTTP options of a cluster.
func httpProtocolOptions(fields ...field) object {
	const name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
	return object{set(name, typedConfig(name, fields...))}
}

// upstreamHTTP speaks the client's version of HTTP to the server.
func (b builder) upstreamHTTP(t twin) object {
	common := object{
		set("idle_timeout", unused), set("max_headers_count", maxHeaders), set("max_response_headers_kb", maxResponseHeaderKB),
	}
	if t.once {
		common = append(common, set("max_requests_per_connection", 1))
	}
	return httpProtocolOptions(
		set("common_http_protocol_options", common),
		set("use_downstream_protocol_config", object{
			set("http_protocol_options", http1(t.wholeURL)),
			// The server itself limits how many requests it takes at once.
			set("http2_protocol_options", object{set("max_concurrent_streams", math.MaxInt32), set("allow_connect", true)}),
		}))
}

// Envoy adds x-forwarded-proto to every request without it, and turns every target
// into origin form. So two headers of ours record what a request looked like before
// Envoy changes it. They choose the route, and are removed before the request
// leaves, together with the header that Envoy added.
const (
	// formHeader is the version, the scheme if the target was a whole URL, and
	// Connection: "HTTP/1.1 http -", "HTTP/1.1 - close".
	formHeader  = "x-shunt-form"
	protoHeader = "x-shunt-proto" // the client's own x-forwarded-proto

	forwardedProto = "x-forwarded-proto"
	wholeURLForm   = "HTTP/1.1 http" // and https
	lastForm       = " close"
)

func noteForm() object {
	return extension("note_form", "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
		set("mutations", list{
			overwrite(formHeader, "%PROTOCOL% %REQ(:SCHEME)% %REQ(CONNECTION)%"),
			remove(protoHeader),
			overwrite(protoHeader, "%REQ("+forwardedProto+")%"),
		}))
}

func forgetForm() object {
	return extension("envoy.filters.http.header_mutation", "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
		set("mutations", object{set("request_mutations", list{
			remove(formHeader),
			remove(forwardedProto),
			overwrite(forwardedProto, "%REQ("+protoHeader+")%"),
			remove(protoHeader),
		})}))
}

func remove(header string) object { return object{set("remove", header)} }

// overwrite sets a header, unless the value is empty.
func overwrite(header, value string) object {
	return object{set("append", object{
		set("header", object{set("key", header), set("value", value)}),
		set("append_action", "OVERWRITE_IF_EXISTS_OR_ADD"),
	})}
}

// passthroughRoutes send any request to the cluster, or to a twin.
func passthroughRoutes(cluster string) object {
	to := func(t twin, match ...field) object {
		return object{
			set("match", object(match)),
			set("route", object{set("cluster", cluster+t.suffix), set("timeout", time.Duration(0))}),
		}
	}
	anyTarget := set("prefix", "")
	form := func(matcher ...field) field {
		return set("headers", list{object{set("name", formHeader), set("string_match", object(matcher))}})
	}
	return routes(cluster,
		to(usual, set("connect_matcher", object{})),
		to(absoluteForm, anyTarget, form(set("prefix", wholeURLForm))),
		to(lastRequest, anyTarget, form(set("suffix", lastForm), set("ignore_case", true))),
		to(usual, anyTarget),
	)
}

// routes returns a route configuration for any host. The first match wins.
func routes(name string, all ...object) object {
	var each list
	for _, route := range all {
		each = append(each, route)
	}
	return object{set("name", name), set("virtual_hosts", list{object{
		set("name", name), set("domains", list{"*"}), set("routes", each),
	}})}
}

func toCluster(name string) object { return object{set("route", object{set("cluster", name)})} }

func status(code int) object {
	return object{set("direct_response", object{set("status", code)})}
}

// router returns the last HTTP filter. It is kept from adding headers that reveal the
// proxy.
func router() object {
	return extension("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router",
		set("suppress_envoy_headers", true))
}
