package proxy

import (
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
	"github.com/shunt-dev/shunt/test/queries"
)

var (
	quoted   = regexp.MustCompile(`"[^"]*"`)
	selector = regexp.MustCompile(`(\w+)\{([^}]*)\}`)
	label    = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*""`)
	grouping = regexp.MustCompile(`\bby \(([^)]*)\)`)
	series   = regexp.MustCompile(`(?m)^(\w+)\{(.*)\} `)
)

// ofTarget are the labels that the PodMonitor adds, as the Prometheus operator does.
var ofTarget = []string{"container", "namespace", "pod"}

// TestQueries checks that Envoy has every metric and label of the proxies' alerts and dashboard, by
// default.
func TestQueries(t *testing.T) {
	t.Parallel()
	p := envoyPod(t, interception.ModeRedirect, lookForHTTP)
	w := &way{direction: inbound4, pod: p, system: interception.SystemRedirect}
	w.serveHTTP(t, statisticsPort, &http.Server{Handler: http.HandlerFunc(tell)})
	if status, said := get(client(fromOutside(p.Lab)), netns.PodIPv4, statisticsPort, "/"); status != http.StatusOK {
		t.Fatal(said)
	}
	there := map[string][]string{"up": nil} // Prometheus' own
	for _, match := range series.FindAllStringSubmatch(p.scraped(t), -1) {
		for _, l := range label.FindAllStringSubmatch(quoted.ReplaceAllString(match[2], `""`), -1) {
			there[match[1]] = append(there[match[1]], l[1])
		}
		there[match[1]] = append(there[match[1]], ofTarget...)
	}
	for file, least := range map[string]int{"proxy-rules.yaml": 4, "proxy-dashboard.json": 15} {
		found := queries.Of(t, filepath.Join("../../config/prometheus", file))
		if len(found) < least {
			t.Errorf("%s: %d queries, want %d at least", file, len(found), least)
		}
		for _, query := range found {
			for _, wrong := range wrongQuery(query, there) {
				t.Errorf("%s: %q: %s", file, query, wrong)
			}
		}
	}
	for _, query := range []string{
		`rate(envoy_cluster_upstream_cx_length_ms_count{pod="a"}[5m])`, `envoy_server_live{envoy_cluster_name="a"}`, `envoy_server_live`,
		`sum by (envoy_listener_address) (envoy_server_live{})`,
	} {
		if wrong := wrongQuery(query, there); len(wrong) != 1 {
			t.Errorf("%q: %v; this test cannot fail", query, wrong)
		}
	}
}

// wrongQuery returns which metrics and labels of a query are not there. It knows as much of PromQL
// as the files use: every metric has braces.
func wrongQuery(query string, there map[string][]string) (wrong []string) {
	known := append([]string{"le"}, ofTarget...)
	rest := quoted.ReplaceAllString(query, `""`)
	for _, match := range selector.FindAllStringSubmatch(rest, -1) {
		labels, is := there[match[1]]
		if !is {
			wrong = append(wrong, "no metric "+match[1])
			continue
		}
		known = append(known, labels...)
		for _, l := range label.FindAllStringSubmatch(match[2], -1) {
			if !slices.Contains(append(labels, ofTarget...), l[1]) {
				wrong = append(wrong, match[1]+" has no label "+l[1])
			}
		}
	}
	rest = selector.ReplaceAllString(rest, "")
	for _, match := range grouping.FindAllStringSubmatch(rest, -1) {
		for l := range strings.SplitSeq(match[1], ",") {
			if !slices.Contains(known, strings.TrimSpace(l)) {
				wrong = append(wrong, "no label "+l)
			}
		}
	}
	if strings.Contains(grouping.ReplaceAllString(rest, ""), "envoy_") {
		wrong = append(wrong, "a metric without braces")
	}
	return wrong
}
