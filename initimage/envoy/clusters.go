package envoy

import (
	"encoding/base64"
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// Names of clusters, as Istio has them in its logs and metrics.
const (
	passthroughCluster = "PassthroughCluster"
	blackHoleCluster   = "BlackHoleCluster"
	adminCluster       = "admin"
)

func inboundCluster(f family) string { return "InboundPassthroughCluster" + f.cluster }

func (b builder) clusters() list {
	all := list{fixed(adminCluster, connectTimeout, address(loopback, interception.AdminPort))}
	for _, f := range b.families {
		all = append(all, b.passthroughClusters(inboundCluster(f), b.InboundHTTPPorts, b.inboundBind(f)...)...)
		all = append(all, b.healthClusters(f)...)
	}
	all = append(all, b.passthroughClusters(passthroughCluster, b.OutboundHTTPPorts)...)
	if b.spec.DNS.Redirect {
		all = append(all, resolvers())
	}
	return append(all, object{
		because("It has no endpoint: a connection that is sent here is closed.", "name", blackHoleCluster),
		set("type", "STATIC"),
		set("connect_timeout", connectTimeout),
	})
}

// inboundBind is how Envoy's connections to the application are bound.
func (b builder) inboundBind(f family) []field {
	switch b.mode {
	case interception.ModeTProxy: // original_src binds to the client's address
		return []field{because(reuseReason, "upstream_bind_config", object{set("socket_options", list{boundToLoopback()})})}
	case interception.ModeNone:
		return nil
	}
	bind := object{set("source_address", socketAddress(f.inboundSource, 0))}
	if f.inboundSource == familyIPv6.inboundSource { // 127.0.0.6 is a loopback address by itself
		bind = append(bind, because(reuseReason, "socket_options", list{boundToLoopback()}))
	}
	return []field{because("The rules know Envoy's connections to the application by this address.", "upstream_bind_config", bind)}
}

// The kernel lets a port be taken again within the minute after its connection
// has ended where both ends are on the loopback interface (tcp_tw_reuse), which
// it knows by the socket's device: with 500 ports and 100 connections a second
// 500 of 1,500 succeeded, and all of them so. It takes no capability since Linux
// 5.7.
const reuseReason = "On lo the kernel reuses a port at once; elsewhere it waits a minute, and ports run out."

// boundToLoopback is the option of a socket that is bound to lo. The numbers
// are Linux's SOL_SOCKET and SO_BINDTODEVICE.
func boundToLoopback() object {
	return object{
		set("description", "SO_BINDTODEVICE"), set("level", 1), set("name", 25),
		set("buf_value", base64.StdEncoding.EncodeToString([]byte("lo\x00"))),
	}
}

// passthroughClusters are the cluster that dials where the connection was
// going and, where HTTP is looked for, its twins.
func (b builder) passthroughClusters(name, httpPorts string, bind ...field) list {
	if httpPorts == "" {
		return list{b.originalDestination(name, bind...)}
	}
	var all list
	for _, t := range []twin{usual, absoluteForm, lastRequest} {
		cluster := b.originalDestination(name+t.suffix, bind...)
		if t != usual {
			cluster = append(cluster, set("alt_stat_name", name))
		}
		all = append(all, append(cluster, set("typed_extension_protocol_options", b.upstreamHTTP(t))))
	}
	return all
}

// originalDestination dials the address that the connection was going to.
func (b builder) originalDestination(name string, bind ...field) object {
	return append(object{
		set("name", name),
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
		because("What a server knows by connection, such as who logged in, stays with its client.",
			"connection_pool_per_downstream_connection", true),
	}, bind...)
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
