package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
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
	"k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/yaml"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/test/queries"
)

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
	counts.pods.set(map[inject.Standing]int{})
	counts.certificate.watch(newCertificate(t))
	server := NewServer(Options{}, counts)
	server.Register(Path, NewHandler(config.Default(), StaticNamespaces{}, counts).HTTP(logr.Discard()))
	server.WebhookMux().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, Path, bytes.NewReader(nil)))
	own := prometheus.NewPedanticRegistry()
	if err := register(own, counts); err != nil {
		t.Fatal(err)
	}
	return queries.Exposed(t, own, metrics.Registry)
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

// TestQueriesAskForWhatIsThere checks that the webhook exposes every metric and label of the alerts
// and the dashboard.
func TestQueriesAskForWhatIsThere(t *testing.T) {
	there := exposed(t)
	maps.Copy(there, ofAPIServers)
	queries.Check(t, "../config/prometheus/rules.yaml", 8, there)
	queries.Check(t, "../config/prometheus/dashboard.json", 20, there)
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
	for _, file := range []string{"dashboard.json", "proxy-dashboard.json", "node-dashboard.json"} {
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

// alerts returns the names of all alerts: of the webhook, of the proxies, whose queries test/proxy
// checks, and of the nodes' agents, whose queries are checked beside their metrics.
func alerts(t *testing.T) []string {
	t.Helper()
	return slices.Concat(alertsOf(t, "rules.yaml"), alertsOf(t, "proxy-rules.yaml"), alertsOf(t, "node-rules.yaml"))
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
