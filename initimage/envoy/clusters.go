package envoy

import (
	"encoding/base64"
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// Names of clusters, as in Istio's logs and metrics.
const (
	passthroughCluster = "PassthroughCluster"
	blackHoleCluster   = "BlackHoleCluster"
	adminCluster       = "admin"
)

func inboundCluster(f family) string { return "InboundPassthroughCluster" + f.cluster }

func (b builder) clusters() list {
	all := list{fixed(adminCluster, connectTimeout, address(loopback, interception.AdminPort))}
	for _, f := range b.families {
		name := inboundCluster(f)
		all = append(all, b.passthroughClusters(name, name, b.InboundHTTPPorts, b.inboundBind(f, false)...)...)
		if b.separatesSelf() {
			all = append(all, b.passthroughClusters(name+selfSuffix, name, b.InboundHTTPPorts, b.inboundBind(f, true)...)...)
		}
		all = append(all, b.healthClusters(f)...)
	}
	all = append(all, b.passthroughClusters(passthroughCluster, passthroughCluster, b.OutboundHTTPPorts)...)
	if b.spec.DNS.Redirect {
		all = append(all, resolvers())
	}
	return append(all, object{
		explained("It has no endpoint: a connection that is sent here is closed.", "name", blackHoleCluster),
		set("type", "STATIC"),
		set("connect_timeout", connectTimeout),
	})
}

// selfSuffix ends the name of the inbound cluster for connections that the pod
// makes to itself.
const selfSuffix = "Self"

// separatesSelf reports whether connections that the pod makes to its own address
// need a cluster of their own. In TPROXY they are made from that address. If their
// socket were bound to lo, the kernel would not find it for their answers: for the
// kernel these come in by the interface that has the address.
func (b builder) separatesSelf() bool { return b.mode == interception.ModeTProxy && b.BindToLoopback }

// inboundBind returns how Envoy's connections to the app are bound, or those that the
// pod makes to itself.
//
// The kernel reuses a port within the minute after its connection has ended only if
// an end of the connection has a loopback address, as 127.0.0.6 is, or the socket
// is bound to lo (tcp_tw_reuse in ip-sysctl). Without either, with 500 ports and
// 100 connections a second, 500 of 1,500 connections succeeded; with it, all of
// them. Package ruleset has a route for a bound connection from ::6.
func (b builder) inboundBind(f family, self bool) []field {
	var bind object
	var options list
	if b.mode == interception.ModeRedirect {
		bind = append(bind, explained("The rules know Envoy's connections to the application by this address.",
			"source_address", socketAddress(f.inboundSource, 0)))
	}
	reused := b.mode == interception.ModeRedirect && f.loopback == loopback
	if b.mode != interception.ModeNone && b.BindToLoopback && !reused && !self {
		const soBindToDevice = 25
		options = append(options, object{
			explained("On lo the kernel reuses a port at once; elsewhere it waits a minute, and ports run out.",
				"description", "SO_BINDTODEVICE"), set("level", solSocket), set("name", soBindToDevice),
			set("buf_value", base64.StdEncoding.EncodeToString([]byte("lo\x00"))),
		})
	}
	if b.spec.NoConntrack {
		options = append(options, marked(b.spec.Marks().Hop)) // here, too: otherwise it would have the mark of all others
	}
	if options != nil {
		bind = append(bind, set("socket_options", options))
	}
	if bind == nil {
		return nil // in TPROXY original_src binds to the client's address
	}
	return []field{set("upstream_bind_config", bind)}
}

// passthroughClusters returns the cluster that dials a connection's own destination
// and, if HTTP is detected, its twins. In logs and metrics all of them have the
// name shown.
func (b builder) passthroughClusters(name, shown, httpPorts string, bind ...field) list {
	if httpPorts == "" {
		return list{b.originalDestination(name, shown, bind...)}
	}
	var all list
	for _, t := range []twin{usual, absoluteForm, lastRequest} {
		cluster := b.originalDestination(name+t.suffix, shown, bind...)
		all = append(all, append(cluster, set("typed_extension_protocol_options", b.upstreamHTTP(t))))
	}
	return all
}

// originalDestination dials a connection's own destination.
func (b builder) originalDestination(name, shown string, bind ...field) object {
	cluster := object{set("name", name)}
	if shown != name {
		cluster = append(cluster, set("alt_stat_name", shown))
	}
	cluster = append(cluster,
		set("type", "ORIGINAL_DST"),
		set("lb_policy", "CLUSTER_PROVIDED"),
		set("connect_timeout", connectTimeout),
		bufferLimited,
		set("circuit_breakers", unlimited()),
		set("upstream_connection_options", object{set("tcp_keepalive", object{
			set("keepalive_time", int(b.Keepalive.TimeSeconds)),
			set("keepalive_interval", int(b.Keepalive.IntervalSeconds)),
			set("keepalive_probes", int(b.Keepalive.Probes)),
		})}),
		explained("What a server knows by connection, such as who logged in, stays with its client.",
			"connection_pool_per_downstream_connection", true),
	)
	return append(cluster, bind...)
}

// fixed dials one address.
func fixed(name string, timeout time.Duration, at object) object {
	return object{
		set("name", name),
		set("type", "STATIC"),
		set("connect_timeout", timeout),
		set("load_assignment", object{
			set("cluster_name", name),
			set("endpoints", list{object{set("lb_endpoints", list{object{set("endpoint", object{set("address", at)})}})}}),
		}),
	}
}
