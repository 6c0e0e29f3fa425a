package proxy

import (
	"fmt"
	"net"
	"net/http"
	"regexp"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/test/netns"
)

const (
	statisticsPort uint16 = 9085
	unansweredPort uint16 = 9086 // nobody listens there
)

// scraped returns the page that Prometheus reads.
func (p *pod) scraped(t *testing.T) string {
	t.Helper()
	status, text := get(client(fromOutside(p.Lab)), netns.PodIPv4, interception.MetricsPort, "/stats/prometheus")
	if status != http.StatusOK {
		t.Fatalf("metrics: %d %.300s", status, text)
	}
	return text
}

// counted returns the value of a metric with these labels, or an empty string if there is none.
func counted(text, series string) string {
	match := regexp.MustCompile("(?m)^" + regexp.QuoteMeta(series) + " (.+)$").FindStringSubmatch(text)
	if match == nil {
		return ""
	}
	return match[1]
}

// TestStatistics checks that a scrape counts connections, requests, bytes and errors by listener and
// cluster, that it is small, and that more can be had on request.
func TestStatistics(t *testing.T) {
	t.Parallel()
	const unused = `envoy_cluster_lb_healthy_panic{envoy_cluster_name="PassthroughCluster"}`
	t.Run("bytes", func(t *testing.T) {
		p := envoyPod(t, interception.ModeRedirect, nil)
		w := &way{direction: inbound4, pod: p, system: interception.SystemRedirect}
		w.serve(t, statisticsPort, func(conn *net.TCPConn) error {
			_, err := fmt.Fprint(conn, "hello")
			return err
		})
		for _, port := range []uint16{statisticsPort, unansweredPort} {
			conn := w.mustDial(t, port)
			_, _ = conn.Read(make([]byte, 9))
			_ = conn.Close()
		}
		const cluster = `{envoy_cluster_name="InboundPassthroughClusterIpv4"}`
		within(t, "both connections are counted", &output{}, func() bool {
			return counted(p.scraped(t), "envoy_cluster_upstream_cx_connect_fail"+cluster) == "1"
		})
		text := p.scraped(t)
		for series, want := range map[string]string{
			"envoy_cluster_upstream_cx_total" + cluster:                                       "2",
			"envoy_cluster_upstream_cx_rx_bytes_total" + cluster:                              "5",
			`envoy_tcp_downstream_cx_total{envoy_tcp_prefix="InboundPassthroughClusterIpv4"}`: "2",
			`envoy_listener_downstream_cx_active{envoy_listener_address="0.0.0.0_15001"}`:     "0",
			"envoy_server_live{}": "1",
			`envoy_overload_envoy_overload_actions_stop_accepting_connections_active{}`: "0",
			unused: "",
		} {
			if got := counted(text, series); got != want {
				t.Errorf("%s is %q, want %q", series, got, want)
			}
		}
		checkScrape(t, text, 12_000)
	})
	t.Run("HTTP", func(t *testing.T) {
		p := envoyPod(t, interception.ModeTProxy, map[string]string{
			annotation.ProtocolDetectionKey: "all", annotation.DNSCaptureKey: string(config.DNSCaptureAll),
		})
		w := &way{direction: inbound4, pod: p, system: interception.SystemTProxy}
		w.serveHTTP(t, statisticsPort, &http.Server{Handler: http.HandlerFunc(tell)})
		for _, path := range []string{"/", "/status/503"} {
			if status, said := get(client(fromOutside(p.Lab)), netns.PodIPv4, statisticsPort, path); status == 0 {
				t.Fatal(said)
			}
		}
		text := p.scraped(t)
		const (
			manager = `envoy_http_conn_manager_prefix="InboundPassthroughClusterIpv4"`
			cluster = `envoy_cluster_name="InboundPassthroughClusterIpv4"`
		)
		for series, want := range map[string]string{
			"envoy_http_downstream_rq_total{" + manager + "}":                             "2",
			`envoy_http_downstream_rq_xx{envoy_response_code_class="5",` + manager + "}":  "1",
			`envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",` + cluster + "}": "1",
			`envoy_udp_downstream_sess_total{envoy_udp_prefix="dns"}`:                     "0",
			unused: "",
		} {
			if got := counted(text, series); got != want {
				t.Errorf("%s is %q, want %q", series, got, want)
			}
		}
		if counted(text, "envoy_http_downstream_rq_time_count{"+manager+"}") == "" { // the number follows after seconds
			t.Error("the time that requests take is not there")
		}
		checkScrape(t, text, 48_000)
	})
	t.Run("on request", func(t *testing.T) {
		p := envoyPod(t, interception.ModeRedirect, map[string]string{annotation.ProxyConfigKey: `
proxyStatsMatcher:
  inclusionPrefixes: [cluster.PassthroughCluster.lb_]
  inclusionSuffixes: [upstream_cx_overflow]
  inclusionRegexps: ['.*\.(?i:UPSTREAM)_cx_max_req\w+$']`})
		text := p.scraped(t)
		const of = `{envoy_cluster_name="admin"}`
		for series, want := range map[string]string{
			unused: "0", "envoy_cluster_upstream_cx_overflow" + of: "0", "envoy_cluster_upstream_cx_max_requests" + of: "0",
			"envoy_cluster_upstream_cx_idle_timeout" + of: "",
		} {
			if got := counted(text, series); got != want {
				t.Errorf("%s is %q, want %q", series, got, want)
			}
		}
	})
	t.Run("all", func(t *testing.T) {
		p := startPod(t, newPod(t, interception.ModeRedirect, nil, func(cfg *config.Config) {
			cfg.ProxyStatsMatcher.Regexps = []string{".*"}
		}), map[string]string{envoy: envoyBinary(t)}, nil)
		if text := p.scraped(t); len(text) < 100_000 {
			t.Errorf("all statistics are %d bytes", len(text))
		}
	})
}

func checkScrape(t *testing.T, text string, most int) {
	t.Helper()
	t.Logf("%d bytes, %d series", len(text), len(regexp.MustCompile("(?m)^[^#]").FindAllString(text, -1)))
	if len(text) > most {
		t.Errorf("a scrape is %d bytes, want at most %d:\n%s", len(text), most, text)
	}
}
