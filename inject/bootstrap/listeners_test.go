package bootstrap_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/bootstrap"
)

var passthroughCluster = map[string]string{
	"virtualInbound": "InboundPassthroughClusterIpv4", "virtualInbound_v6": "InboundPassthroughClusterIpv6",
	"virtualOutbound": "PassthroughCluster", "virtualOutbound_v6": "PassthroughCluster",
}

// TestPassthroughChains: which connections a listener tells apart, where each
// kind goes, and that none is ended for idling and each is logged.
func TestPassthroughChains(t *testing.T) {
	for _, mode := range modes {
		seen := 0
		for _, l := range mustNew(t, options(mode)).StaticResources.Listeners {
			cluster, is := passthroughCluster[l.Name]
			if !is {
				continue
			}
			seen++
			port := l.Address.GetSocketAddress().GetPortValue()
			loopback := map[string]string{"0.0.0.0": "127.0.0.1/32", "::": "::1/128"}[l.Address.GetSocketAddress().GetAddress()]
			want := []string{
				fmt.Sprintf("health port=%d to=%s from=%s http", port, loopback, loopback),
				fmt.Sprintf("blackhole port=%d tcp BlackHoleCluster", port),
				"http raw_buffer http/1.1,h2c http " + cluster + " " + cluster + "AbsoluteForm " + cluster + "LastRequest",
				"tls tls tcp " + cluster,
				"tcp tcp " + cluster,
			}
			var got []string
			for _, chain := range append(slices.Clone(l.FilterChains), l.DefaultFilterChain) {
				got = append(got, describe(t, l, chain))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s %s: chains (-want +got):\n%s", mode, l.Name, diff)
			}
			if l.GetUseOriginalDst().GetValue() {
				t.Errorf("%s hands connections to other listeners", l.Name)
			}
			if !l.ContinueOnListenerFiltersTimeout || l.GetListenerFiltersTimeout().AsDuration() <= 0 {
				t.Errorf("%s: a silent client is not carried on in the end", l.Name)
			}
		}
		if seen != len(passthroughCluster) {
			t.Errorf("%s: %d of %d pass-through listeners", mode, seen, len(passthroughCluster))
		}
	}
}

// describe prints a chain's match and where it leads, and checks what all
// chains have in common.
func describe(t *testing.T, l *listenerv3.Listener, chain *listenerv3.FilterChain) string {
	t.Helper()
	words := []string{chain.Name}
	if match := chain.FilterChainMatch; match != nil {
		if match.DestinationPort != nil {
			words = append(words, fmt.Sprintf("port=%d", match.DestinationPort.Value))
		}
		for _, r := range match.PrefixRanges {
			words = append(words, fmt.Sprintf("to=%s/%d", r.AddressPrefix, r.PrefixLen.Value))
		}
		for _, r := range match.SourcePrefixRanges {
			words = append(words, fmt.Sprintf("from=%s/%d", r.AddressPrefix, r.PrefixLen.Value))
		}
		words = append(words, match.TransportProtocol, strings.Join(match.ApplicationProtocols, ","))
	}
	var tcp tcpproxyv3.TcpProxy
	var http hcmv3.HttpConnectionManager
	config := chain.Filters[0].GetTypedConfig()
	switch {
	case config.MessageIs(&tcp):
		unmarshal(t, config, &tcp)
		words = append(words, "tcp", tcp.GetCluster())
		if tcp.IdleTimeout == nil || tcp.IdleTimeout.AsDuration() != 0 {
			t.Errorf("%s %s: idle timeout is %v, want 0 said outright", l.Name, chain.Name, tcp.IdleTimeout)
		}
		checkAccessLog(t, l, chain, tcp.AccessLog)
	case config.MessageIs(&http):
		unmarshal(t, config, &http)
		words = append(words, "http")
		if chain.Name == "http" {
			words = append(words, routeClusters(t, &http)...)
			checkAccessLog(t, l, chain, http.AccessLog)
		}
	}
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " ")
}

// routeClusters lists the clusters of the routes, each once, and checks that
// no route has a time limit: Envoy's own is 15 seconds.
func routeClusters(t *testing.T, http *hcmv3.HttpConnectionManager) []string {
	t.Helper()
	var clusters []string
	for _, route := range http.GetRouteConfig().VirtualHosts[0].Routes {
		action := route.GetRoute()
		if !slices.Contains(clusters, action.GetCluster()) {
			clusters = append(clusters, action.GetCluster())
		}
		if action.Timeout == nil || action.Timeout.AsDuration() != 0 {
			t.Errorf("route to %s: timeout is %v, want 0 said outright", action.GetCluster(), action.Timeout)
		}
	}
	return clusters
}

func checkAccessLog(t *testing.T, l *listenerv3.Listener, chain *listenerv3.FilterChain, logs []*accesslogv3.AccessLog) {
	t.Helper()
	if len(logs) != 1 {
		t.Fatalf("%s %s has %d access logs, want 1", l.Name, chain.Name, len(logs))
	}
	var log streamv3.StdoutAccessLog
	unmarshal(t, logs[0].GetTypedConfig(), &log)
	fields := log.GetLogFormat().GetJsonFormat().AsMap()
	for _, name := range []string{
		"upstream_cluster", "upstream_host", "upstream_local_address", "downstream_local_address",
		"protocol", "bytes_sent", "bytes_received", "duration", "response_flags",
	} {
		if want := "%" + strings.ToUpper(name) + "%"; fields[name] != want {
			t.Errorf("%s %s: log field %s is %v, want %s", l.Name, chain.Name, name, fields[name], want)
		}
	}
	// The other one is what X-Forwarded-For says.
	if got := fields["downstream_remote_address"]; got != "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%" {
		t.Errorf("%s %s: the client's address in the log is %v", l.Name, chain.Name, got)
	}
	names := l.Metadata.GetFilterMetadata()["shunt"].AsMap()
	if names["name"] != l.Name || !strings.Contains(strings.ToLower(l.Name), names["direction"].(string)) {
		t.Errorf("%s says that it is %v", l.Name, names)
	}
}

func unmarshal(t *testing.T, from interface{ UnmarshalTo(proto.Message) error }, into proto.Message) {
	t.Helper()
	if err := from.UnmarshalTo(into); err != nil {
		t.Fatal(err)
	}
}

// TestServerFirstPorts: no inspector looks at a connection to them.
func TestServerFirstPorts(t *testing.T) {
	for text, want := range map[string]string{
		"":             "",
		"25":           "25-25",
		"25,3306-3310": "25-25 3306-3310",
	} {
		opts := options(interception.ModeRedirect)
		opts.ServerFirstPorts = text
		for _, l := range mustNew(t, opts).StaticResources.Listeners {
			for _, filter := range l.ListenerFilters {
				if !strings.HasSuffix(filter.Name, "_inspector") {
					continue
				}
				var got []string
				rules := []*listenerv3.ListenerFilterChainMatchPredicate{filter.FilterDisabled}
				if or := filter.FilterDisabled.GetOrMatch(); or != nil {
					rules = or.Rules
				}
				for _, rule := range rules {
					if r := rule.GetDestinationPortRange(); r != nil {
						got = append(got, fmt.Sprintf("%d-%d", r.Start, r.End-1))
					}
				}
				if strings.Join(got, " ") != want {
					t.Errorf("%q: %s of %s is switched off for %q, want %q", text, filter.Name, l.Name, got, want)
				}
			}
		}
	}
}

// TestWithoutDetection: every connection is TCP, and nothing waits.
func TestWithoutDetection(t *testing.T) {
	opts := options(interception.ModeRedirect)
	opts.ProtocolDetection = false
	made := mustNew(t, opts)
	for _, l := range made.StaticResources.Listeners {
		for _, filter := range l.ListenerFilters {
			if strings.HasSuffix(filter.Name, "_inspector") {
				t.Errorf("%s has %s", l.Name, filter.Name)
			}
		}
		for _, chain := range l.FilterChains {
			if chain.Name == "http" || chain.Name == "tls" {
				t.Errorf("%s has the chain %s", l.Name, chain.Name)
			}
		}
	}
	for _, c := range made.StaticResources.Clusters {
		if strings.HasSuffix(c.Name, "AbsoluteForm") {
			t.Errorf("there is a cluster %s", c.Name)
		}
	}
}

// TestDNSListeners lists where queries are taken.
func TestDNSListeners(t *testing.T) {
	for all, want := range map[bool]string{
		false: "UDP 127.0.0.1:15053, TCP 127.0.0.1:15053, UDP ::1:15053, TCP ::1:15053",
		true:  "UDP 0.0.0.0:15053, TCP 0.0.0.0:15053, UDP :::15053, TCP :::15053",
	} {
		opts := options(interception.ModeTProxy)
		opts.DNSPort, opts.DNSAllInterfaces = interception.DefaultDNSPort, all
		var got []string
		for _, l := range mustNew(t, opts).StaticResources.Listeners {
			at := l.Address.GetSocketAddress()
			if at.GetPortValue() == uint32(interception.DefaultDNSPort) {
				got = append(got, fmt.Sprintf("%s %s:%d", at.Protocol, at.Address, at.GetPortValue()))
			}
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("on all interfaces %t: %q, want %q", all, got, want)
		}
	}
	for _, c := range mustNew(t, options(interception.ModeRedirect)).StaticResources.Clusters {
		if c.Name == bootstrap.ResolversCluster {
			t.Error("there is a cluster of resolvers, though DNS is not captured")
		}
	}
}

// TestSourceComesBeforeDetection: Envoy leaves out the filters that come after
// one that ran out of time, and a hop to the application without the client's
// address comes back to the proxy.
func TestSourceComesBeforeDetection(t *testing.T) {
	for _, l := range mustNew(t, options(interception.ModeTProxy)).StaticResources.Listeners {
		if !strings.HasPrefix(l.Name, "virtualInbound") {
			continue
		}
		var names []string
		for _, filter := range l.ListenerFilters {
			names = append(names, strings.TrimPrefix(filter.Name, "envoy.filters.listener."))
		}
		if diff := cmp.Diff([]string{"original_dst", "original_src", "tls_inspector", "http_inspector"}, names); diff != "" {
			t.Errorf("%s (-want +got):\n%s", l.Name, diff)
		}
	}
}

// TestServerConnectionsEnd: what belongs to one client's connection, and is not
// ended with it, must end by itself.
func TestServerConnectionsEnd(t *testing.T) {
	twins := 0
	for _, c := range mustNew(t, options(interception.ModeRedirect)).StaticResources.Clusters {
		if !strings.Contains(c.Name, "Passthrough") {
			continue
		}
		var http httpv3.HttpProtocolOptions
		unmarshal(t, c.TypedExtensionProtocolOptions["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"], &http)
		common := http.CommonHttpProtocolOptions
		if idle := common.IdleTimeout.AsDuration(); !c.ConnectionPoolPerDownstreamConnection || idle <= 0 || idle > time.Second {
			t.Errorf("%s: idle timeout is %v", c.Name, idle)
		}
		if strings.HasSuffix(c.Name, "LastRequest") {
			twins++
			if common.MaxRequestsPerConnection.GetValue() != 1 || c.AltStatName != strings.TrimSuffix(c.Name, "LastRequest") {
				t.Errorf("%s: %d requests a connection, in metrics %q", c.Name, common.MaxRequestsPerConnection.GetValue(), c.AltStatName)
			}
		}
	}
	if twins != 3 {
		t.Errorf("%d clusters for the last request of a connection, want 3", twins)
	}
}
