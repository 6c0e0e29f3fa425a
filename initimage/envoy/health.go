package envoy

import (
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// A health check goes through both pass-through listeners of its family, so
// that 200 means that both take connections:
//
//	kubelet ─► health :15021 ─► loopback, virtualInbound :15006 ─► loopback, virtualOutbound :15001 ─► 200
//
// It costs two connections on loopback for each check, and nothing between.

// healthTimeout of each hop is less than the 3 seconds that the sidecar's
// probes wait.
const healthTimeout = time.Second

func healthCluster(listener string, f family) string { return "health_" + listener + f.suffix }

// health takes kubelet's connections. They are carried through the pass-through
// listeners byte by byte, and only the last one reads the request.
func (b builder) health(f family) object {
	return object{
		set("name", "health"+f.suffix),
		set("address", address(f.any, b.HealthPort)),
		set("filter_chains", list{quiet(b).tcpChain("health", healthCluster("inbound", f))}),
	}
}

// quiet is the builder of what is not logged.
func quiet(b builder) builder {
	b.AccessLog = AccessLogNone
	return b
}

// healthMatch has a chain take what comes to the listener's own port from
// loopback by loopback.
func healthMatch(l passthrough) object {
	return append(l.health, set("filter_chain_match", object{
		set("destination_port", int(l.port)),
		set("prefix_ranges", only(l.family.loopback)),
		set("source_prefix_ranges", only(l.family.loopback)),
	}))
}

// healthAnswer says 200 to HealthPath, or 503 once Envoy was told to fail.
func healthAnswer() object {
	check := extension("envoy.filters.http.health_check", "envoy.extensions.filters.http.health_check.v3.HealthCheck",
		set("pass_through_mode", false),
		set("headers", list{object{set("name", ":path"), set("string_match", object{set("exact", HealthPath)})}}))
	return page("health", nil, check)
}

// healthClusters dial the pass-through listeners of a family.
func (b builder) healthClusters(f family) list {
	return list{
		fixed(healthCluster("inbound", f), healthTimeout, address(f.loopback, b.spec.InboundPort)),
		fixed(healthCluster("outbound", f), healthTimeout, address(f.loopback, b.spec.OutboundPort)),
	}
}

// metrics lets one path of the admin interface out, and no other.
func (b builder) metrics(f family) object {
	return object{
		set("name", "metrics"+f.suffix),
		set("address", address(f.any, interception.MetricsPort)),
		set("bypass_overload_manager", true),
		set("filter_chains", list{page("metrics",
			append(object{set("match", object{set("path", MetricsPath)})}, toCluster(adminCluster)...))}),
	}
}

// page is a filter chain that answers by a route or a filter, and for anything
// else says that it is not found.
func page(name string, route object, filters ...object) object {
	all := routes(name, append(object{set("match", object{set("prefix", "")})}, status(404)...))
	if route != nil {
		all = routes(name, route, append(object{set("match", object{set("prefix", "")})}, status(404)...))
	}
	var each list
	for _, filter := range append(filters, router()) {
		each = append(each, filter)
	}
	return managed(name,
		set("stat_prefix", name),
		set("generate_request_id", false),
		set("http_filters", each),
		set("route_config", all))
}
