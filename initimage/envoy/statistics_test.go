package envoy_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
)

// keeps returns what Envoy does with a statistic, by the bootstrap's own patterns.
func keeps(t *testing.T, m variant) func(string) bool {
	t.Helper()
	patterns := m.read(t).GetStatsConfig().GetStatsMatcher().GetInclusionList().GetPatterns()
	return func(name string) bool {
		for _, p := range patterns {
			whole := regexp.MustCompile("^(?:" + p.GetSafeRegex().GetRegex() + ")$")
			if p.GetPrefix() != "" && strings.HasPrefix(name, p.GetPrefix()) ||
				p.GetSuffix() != "" && strings.HasSuffix(name, p.GetSuffix()) ||
				p.GetSafeRegex() != nil && whole.MatchString(name) {
				return true
			}
		}
		return false
	}
}

// TestKeptStatistics lists what a scrape has by default. Those with a comment are read by shunt-init
// drain.
func TestKeptStatistics(t *testing.T) {
	kept := keeps(t, defaults(interception.ModeTProxy))
	for _, name := range []string{
		"listener.0.0.0.0_15006.downstream_cx_total", "listener.[__]_15001.downstream_cx_active", // drain
		"listener.0.0.0.0_15001.downstream_pre_cx_active",                                              // drain
		"listener.[__]_15006.http.InboundPassthroughClusterIpv6Self.downstream_rq_completed",           // drain
		"http.PassthroughCluster.downstream_cx_active", "http.PassthroughCluster.downstream_rq_active", // drain
		"tcp.BlackHoleCluster.upstream_flush_active", // drain
		"listener.127.0.0.1_15053.downstream_cx_total", "listener.[fd00__1]_15006.no_filter_chain_match",
		"http.InboundPassthroughClusterIpv4.downstream_rq_5xx", "http.PassthroughCluster.downstream_rq_time",
		"tcp.InboundPassthroughClusterIpv4Self.downstream_cx_rx_bytes_total",
		"cluster.InboundPassthroughClusterIpv6.upstream_cx_connect_fail", "cluster.PassthroughCluster.upstream_rq_2xx",
		"cluster.dns.udp.sess_rx_datagrams", "udp.dns.downstream_sess_total",
		"server.live", "server.memory_allocated", "overload.envoy.overload_actions.stop_accepting_connections.active",
		"overload.envoy.resource_monitors.fixed_heap.pressure",
	} {
		if !kept(name) {
			t.Errorf("%s is not kept", name)
		}
	}
	for _, name := range []string{
		"listener.0.0.0.0_15006.worker_0.downstream_cx_total", "listener.0.0.0.0_15021.downstream_cx_total",
		"listener.admin.downstream_cx_total",
		"listener.0.0.0.0_15006.http.health.downstream_rq_completed", "listener.0.0.0.0_15006.downstream_cx_length_ms",
		"http.health.downstream_rq_total", "cluster.health_inbound.upstream_cx_total", "cluster.admin.upstream_rq_total",
		"cluster.PassthroughCluster.upstream_cx_length_ms", "cluster.PassthroughCluster.lb_healthy_panic",
		"cluster.zipkin.upstream_cx_total",
		"server.initialization_time_ms", "runtime.load_success",
	} {
		if kept(name) {
			t.Errorf("%s is kept", name)
		}
	}
}

// TestStatsMatcher checks that each list adds its own, and takes nothing away.
func TestStatsMatcher(t *testing.T) {
	m := defaults(interception.ModeRedirect)
	m.settings.StatsMatcher = envoy.StatsMatcher{
		Prefixes: []string{"cluster.zipkin"}, Suffixes: []string{"_length_ms"}, Regexps: []string{`cluster\..*\.lb_healthy_panic$`},
	}
	kept := keeps(t, m)
	for name, want := range map[string]bool{
		"cluster.zipkin.upstream_cx_total": true, "listener.0.0.0.0_15006.downstream_cx_length_ms": true,
		"cluster.a.lb_healthy_panic": true,
		"server.live":                true, "a.cluster.zipkin": false, "x.lb_healthy_panic": false,
	} {
		if kept(name) != want {
			t.Errorf("%s is kept: %t, want %t", name, !want, want)
		}
	}
	m.settings.StatsMatcher = envoy.StatsMatcher{Regexps: []string{".*"}}
	if all := keeps(t, m); !all("runtime.load_success") {
		t.Error(".* is not all")
	}
}

func TestStatsMatcherDeniesWhatEnvoyWould(t *testing.T) {
	long := strings.Repeat("a", 201)
	for want, m := range map[string]envoy.StatsMatcher{
		`inclusionPrefixes[1] invalid value "": it is empty; accepted: 1 to 200`:           {Prefixes: []string{"a", ""}},
		`inclusionSuffixes[0] invalid value "a b": it has another character; accepted: 1`:  {Suffixes: []string{"a b"}},
		`inclusionSuffixes[0] invalid value "` + long + `": it is longer than 200 bytes`:   {Suffixes: []string{long}},
		"inclusionRegexps[0] invalid value \"(\": error parsing regexp: missing closing )": {Regexps: []string{"("}},
		`inclusionRegexps[0] invalid value "\\p{Letter}": \p is not read; accepted: a r`:   {Regexps: []string{`\p{Letter}`}},
		`inclusionRegexps[0] invalid value "\\x{100}": \x is not read; accepted: a regu`:   {Regexps: []string{`\x{100}`}},
		`inclusionRegexps[0] invalid value "ü": it has another character; accepted: a r`:   {Regexps: []string{"ü"}},
		`inclusionRegexps[0] invalid value "a\\": \ is not read; accepted: a regular ex`:   {Regexps: []string{`a\`}},
		`inclusionRegexps invalid value "51 patterns": accepted: 50 patterns in all thr`: {
			Prefixes: strings.Fields(strings.Repeat("a ", 25)), Regexps: strings.Fields(strings.Repeat("b ", 26)),
		},
	} {
		wrong := m.Validate()
		if len(wrong) != 1 || !strings.HasPrefix(fmt.Sprintf("%s %s", wrong[0].Field, wrong[0]), want) {
			t.Errorf("%v, want %s", wrong, want)
		}
	}
	for _, fine := range []string{".*", `a\.b\d+\\`, `^(?:a|b)?$`, `(?i)[[:alpha:]]{1,1000}`} {
		if wrong := (envoy.StatsMatcher{Regexps: []string{fine}}).Validate(); len(wrong) > 0 {
			t.Errorf("%s: %v", fine, wrong)
		}
	}
}
