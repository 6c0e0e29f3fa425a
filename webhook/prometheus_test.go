package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/yaml"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/test/queries"
)

// ofTarget are the labels that Prometheus adds to everything it scrapes, and that of a histogram's
// buckets.
var ofTarget = []string{"job", "namespace", "pod", "container", "instance", "endpoint", "le"}

// ofAPIServers are metrics of API servers; test/envtest checks that they exist.
var ofAPIServers = map[string][]string{
	"apiserver_admission_webhook_rejection_count": {"name", "type", "operation", "error_type", "rejection_code"},
}

// exposed returns the metrics of a webhook that has read its configuration and certificate and
// answered a request, with their labels.
func exposed(t *testing.T) map[string][]string {
	t.Helper()
	counts := NewMetrics()
	counts.reloaded(true, time.Now())
	counts.certificate.watch(newCertificate(t))
	server := NewServer(Options{}, counts)
	server.Register(Path, NewHandler(config.Default(), StaticNamespaces{}, counts).HTTP(logr.Discard()))
	server.WebhookMux().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, Path, bytes.NewReader(nil)))
	own := prometheus.NewPedanticRegistry()
	if err := register(own, counts); err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for _, registry := range []prometheus.Gatherer{own, metrics.Registry} {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			var labels []string
			for _, label := range family.GetMetric()[0].GetLabel() {
				labels = append(labels, label.GetName())
			}
			names := []string{family.GetName()}
			if family.GetType() == dto.MetricType_HISTOGRAM {
				names = []string{family.GetName() + "_bucket", family.GetName() + "_sum", family.GetName() + "_count"}
			}
			for _, name := range names {
				found[name] = labels
			}
		}
	}
	return found
}

func newCertificate(t *testing.T) *certwatcher.CertWatcher {
	t.Helper()
	certificate, key, err := cert.GenerateSelfSignedCertKey("webhook", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	dir := t.TempDir()
	crtFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	err = errors.Join(err, os.WriteFile(crtFile, certificate, 0o600), os.WriteFile(keyFile, key, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	watcher, err := certwatcher.New(crtFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	return watcher
}

var (
	inQuotes   = regexp.MustCompile(`"(\\.|[^"\\])*"`)
	inBraces   = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^{}]*)\}`)
	matcher    = regexp.MustCompile(`^\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*""\s*$`)
	grouping   = regexp.MustCompile(`\b(by|without|on|ignoring)\s*\(([^()]*)\)`)
	inBrackets = regexp.MustCompile(`\[[0-9]+[smhd]( offset [0-9]+[smhd])?\]`)
	labelQuery = regexp.MustCompile(`^label_values\((\w+), (\w+)\)$`)
	word       = regexp.MustCompile(`\b[a-zA-Z_:][a-zA-Z0-9_:]*\b(\s*\()?`)
)

// query is what a PromQL expression asks for: for each metric the labels that it is matched by, and
// the labels that results are grouped by.
type query struct {
	metrics map[string][]string
	groups  []string
}

// readQuery parses an expression. It knows as much of PromQL as the files use, and rejects the
// rest.
func readQuery(text string) (query, error) {
	q := query{metrics: map[string][]string{}}
	if match := labelQuery.FindStringSubmatch(text); match != nil { // Grafana's, for a variable
		q.metrics[match[1]] = []string{match[2]}
		return q, nil
	}
	text = strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h").Replace(text)
	text = inQuotes.ReplaceAllString(text, `""`)
	var wrong error
	text = inBraces.ReplaceAllStringFunc(text, func(selector string) string {
		parts := inBraces.FindStringSubmatch(selector)
		for one := range strings.SplitSeq(parts[2], ",") {
			label := matcher.FindStringSubmatch(one)
			if label == nil {
				wrong = fmt.Errorf("no matcher: %q", one)
				continue
			}
			q.metrics[parts[1]] = append(q.metrics[parts[1]], label[1])
		}
		return parts[1]
	})
	text = grouping.ReplaceAllStringFunc(text, func(clause string) string {
		for label := range strings.SplitSeq(grouping.FindStringSubmatch(clause)[2], ",") {
			q.groups = append(q.groups, strings.TrimSpace(label))
		}
		return ""
	})
	text = inBrackets.ReplaceAllString(text, "")
	if strings.Count(text, "(") != strings.Count(text, ")") || strings.ContainsAny(text, `{}[]"$`) {
		return q, fmt.Errorf("what is left makes no sense: %s", text)
	}
	return q, errors.Join(wrong, q.readWords(text))
}

// readWords finds the metrics in the rest of an expression.
func (q query) readWords(text string) error {
	functions := []string{"sum", "min", "count", "rate", "increase", "absent", "time", "scalar", "histogram_quantile"}
	for _, name := range word.FindAllString(text, -1) {
		function, called := strings.CutSuffix(name, "(")
		switch {
		case called && !slices.Contains(functions, strings.TrimSpace(function)):
			return fmt.Errorf("unknown function %s", function)
		case !called && !slices.Contains([]string{"and", "or", "unless", "offset"}, name):
			q.metrics[name] = append(q.metrics[name], []string{}...)
		}
	}
	if len(q.metrics) == 0 {
		return errors.New("no metric")
	}
	return nil
}

// TestQueriesAskForWhatIsThere checks that the webhook exposes every metric and label of the alerts
// and the dashboard.
func TestQueriesAskForWhatIsThere(t *testing.T) {
	there := exposed(t)
	for name, labels := range ofAPIServers {
		there[name] = labels
	}
	for file, least := range map[string]int{"rules.yaml": 8, "dashboard.json": 20} {
		all := queries.Of(t, filepath.Join("../config/prometheus", file))
		if len(all) < least {
			t.Errorf("%s: %d queries, want %d at least", file, len(all), least)
		}
		for _, expression := range all {
			q, err := readQuery(expression)
			if err != nil {
				t.Errorf("%s: %q: %v", file, expression, err)
			}
			known := slices.Clone(ofTarget)
			for name, matched := range q.metrics {
				labels, is := there[name]
				if !is {
					t.Errorf("%s: %q: there is no metric %s", file, expression, name)
				}
				known = append(known, labels...)
				for _, label := range matched {
					if !slices.Contains(labels, label) && !slices.Contains(ofTarget, label) {
						t.Errorf("%s: %q: %s has no label %s", file, expression, name, label)
					}
				}
			}
			for _, label := range q.groups {
				if !slices.Contains(known, label) {
					t.Errorf("%s: %q: grouped by %s, which is no label", file, expression, label)
				}
			}
		}
	}
}

// TestReadQueryFindsWhatIsWrong checks that the test above can fail.
func TestReadQueryFindsWhatIsWrong(t *testing.T) {
	for _, text := range []string{
		`sum(rate(x_total[5m])`, `x{a=b}`, `x{a}`, `rate(x_total[5])`, `deriv(x[5m])`, `x{a="b"`, `1 > 2`, `"x"`, `x[$interval]`,
	} {
		if q, err := readQuery(text); err == nil {
			t.Errorf("%s is taken for %v", text, q)
		}
	}
	q, err := readQuery(`sum by (c) (rate(x_total{a="1",b=~"{\"2}"}[5m])) > 2 * scalar(y) unless z offset 1h`)
	want := `{map[x_total:[a b] y:[] z:[]] [c]}`
	if got := fmt.Sprint(q); err != nil || got != want {
		t.Errorf("error %v, query %s, want %s", err, got, want)
	}
}

// panel is a panel of a Grafana dashboard.
type panel struct {
	ID          int
	Type, Title string
	Datasource  source
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct{ Datasource source }
}

type source struct{ Type, UID string }

// TestDashboard checks that Grafana can show the dashboards: no panels overlap, and every query uses
// the chosen data source.
func TestDashboard(t *testing.T) {
	for _, file := range []string{"dashboard.json", "proxy-dashboard.json"} {
		t.Run(file, func(t *testing.T) { checkDashboard(t, file) })
	}
}

func checkDashboard(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../config/prometheus", file))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		UID, Title string
		Panels     []panel
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	if dashboard.UID == "" || dashboard.Title == "" || len(dashboard.Panels) < 10 {
		t.Errorf("uid %q, title %q, %d panels", dashboard.UID, dashboard.Title, len(dashboard.Panels))
	}
	checkPlaces(t, dashboard.Panels)
	chosen := source{"prometheus", "${datasource}"}
	for _, panel := range dashboard.Panels {
		if panel.Type == "row" {
			continue
		}
		if panel.Datasource != chosen || len(panel.Targets) == 0 {
			t.Errorf("%s: data source %v, %d queries", panel.Title, panel.Datasource, len(panel.Targets))
		}
		for _, target := range panel.Targets {
			if target.Datasource != chosen {
				t.Errorf("%s: a query of %v", panel.Title, target.Datasource)
			}
		}
	}
}

func checkPlaces(t *testing.T, panels []panel) {
	t.Helper()
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, panel := range panels {
		if ids[panel.ID] {
			t.Errorf("%s: the id %d is another panel's, too", panel.Title, panel.ID)
		}
		ids[panel.ID] = true
		place := panel.GridPos
		for x := place.X; x < place.X+place.W; x++ {
			for y := place.Y; y < place.Y+place.H; y++ {
				if other, taken := cells[[2]int{x, y}]; taken || x >= 24 {
					t.Fatalf("%s lies outside, or on %s", panel.Title, other)
				}
				cells[[2]int{x, y}] = panel.Title
			}
		}
	}
}

// TestPages checks that the pages have every metric, every reason and every alert, and no others.
func TestPages(t *testing.T) {
	var page []byte
	for _, file := range []string{"../docs/webhook.md", "../docs/operations.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		page = append(page, text...)
	}
	want := append(alerts(t), failures()...)
	for name := range exposed(t) {
		name = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
		if strings.HasPrefix(name, "shunt_") {
			want = append(want, name)
		}
	}
	for _, reason := range inject.Reasons() {
		want = append(want, string(reason))
	}
	var got []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)`|^### (Shunt\\w+)$").FindAllStringSubmatch(string(page), -1) {
		got = append(got, row[1]+row[2])
	}
	slices.Sort(want)
	slices.Sort(got)
	if want = slices.Compact(want); !slices.Equal(want, got) {
		t.Errorf("the pages have rows and headings\n%q, want\n%q", got, want)
	}
}

// alerts returns the names of all alerts, of the webhook and of the proxies, whose queries test/proxy
// checks.
func alerts(t *testing.T) []string {
	t.Helper()
	return append(alertsOf(t, "rules.yaml"), alertsOf(t, "proxy-rules.yaml")...)
}

// alertsOf returns the names of a file's alerts. Each must have a summary and a link into the page.
func alertsOf(t *testing.T, file string) []string {
	t.Helper()
	var rules struct {
		Spec struct {
			Groups []struct {
				Rules []struct {
					Alert       string
					Annotations map[string]string
				}
			}
		}
	}
	text, err := os.ReadFile(filepath.Join("../config/prometheus", file))
	if err == nil {
		err = yaml.Unmarshal(text, &rules)
	}
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, group := range rules.Spec.Groups {
		for _, rule := range group.Rules {
			names = append(names, rule.Alert)
			if url := rule.Annotations["runbook_url"]; !strings.HasSuffix(url, "/docs/operations.md#"+strings.ToLower(rule.Alert)) {
				t.Errorf("alert %s: runbook_url %s", rule.Alert, url)
			}
			if rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
				t.Errorf("alert %s has no summary or description", rule.Alert)
			}
		}
	}
	return names
}
