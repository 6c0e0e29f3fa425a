package envoy

import (
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// A health check passes both pass-through listeners of its family, so that 200
// means that both accept connections:
//
//	kubelet ─► health :15021 ─► loopback, virtualInbound :15006 ─► loopback, virtualOutbound :15001 ─► 200
//
// It costs two connections on loopback for each check, and nothing between checks.

// healthTimeout of each hop is shorter than the 3 seconds that the sidecar's probes
// wait.
const healthTimeout = time.Second

func healthCluster(listener string, f family) string { return "health_" + listener + f.suffix }

// health answers kubelet, with an answer of its own if a hop fails.
func (b builder) health(f family) object {
	check := extension("envoy.filters.http.health_check", "envoy.extensions.filters.http.health_check.v3.HealthCheck",
		set("pass_through_mode", true),
		set("headers", list{object{set("name", ":path"), set("string_match", object{set("exact", HealthPath)})}}))
	return object{
		set("name", "health"+f.suffix),
		set("address", address(f.anyAddress, b.HealthPort)),
		set("filter_chains", list{page("health", HealthPath, toCluster(healthCluster("inbound", f)), check)}),
	}
}

// healthChain accepts what comes from loopback to the listener's own port.
func healthChain(l passthroughKind) object {
	return append(page("health", HealthPath, l.health), set("filter_chain_match", object{
		set("destination_port", int(l.port)),
		set("prefix_ranges", only(l.family.loopback)),
		set("source_prefix_ranges", only(l.family.loopback)),
	}))
}

// healthClusters dial the pass-through listeners of a family.
func (b builder) healthClusters(f family) list {
	// A connection for each check: one that is kept would not show whether new ones
	// work.
	once := set("typed_extension_protocol_options", httpProtocolOptions(
		set("common_http_protocol_options", object{set("max_requests_per_connection", 1)}),
		set("explicit_http_config", object{set("http_protocol_options", object{})})))
	return list{
		append(fixed(healthCluster("inbound", f), healthTimeout, address(f.loopback, b.spec.InboundPort)), once),
		append(fixed(healthCluster("outbound", f), healthTimeout, address(f.loopback, b.spec.OutboundPort)), once),
	}
}

// metrics exposes one path of the admin interface, and no other.
func (b builder) metrics(f family) object {
	return object{
		set("name", "metrics"+f.suffix),
		set("address", address(f.anyAddress, interception.MetricsPort)),
		set("bypass_overload_manager", true),
		set("filter_chains", list{page("metrics", MetricsPath, toCluster(adminCluster))}),
	}
}

// page returns a filter chain that answers one path, and 404 for any other.
func page(name, path string, answer object, filters ...object) object {
	found := append(object{set("match", object{set("path", path)})}, answer...)
	other := append(object{set("match", object{set("prefix", "/")})}, status(404)...)
	var all list
	for _, filter := range append(filters, router()) {
		all = append(all, filter)
	}
	return managed(name,
		set("stat_prefix", name),
		set("generate_request_id", false),
		set("http_filters", all),
		set("route_config", routes(name, found, other)))
}
