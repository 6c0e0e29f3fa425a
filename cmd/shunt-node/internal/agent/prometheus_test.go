//go:build linux

package agent

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/shunt-dev/shunt/initimage/kernel"
	"github.com/shunt-dev/shunt/test/queries"
)

// ofKubeStateMetrics are metrics of kube-state-metrics, which the kustomization's users have.
var ofKubeStateMetrics = map[string][]string{
	"kube_daemonset_status_desired_number_scheduled": {"namespace", "daemonset"},
	"kube_daemonset_status_number_ready":             {"namespace", "daemonset"},
}

// exposed returns the metrics of an agent and of its process.
func exposed(t *testing.T) map[string][]string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	New(Options{Metrics: NewMetrics(registry)})
	return queries.Exposed(t, registry)
}

// TestQueriesAskForWhatIsThere checks that the agent exposes every metric and label of its alerts and
// dashboard.
func TestQueriesAskForWhatIsThere(t *testing.T) {
	there := exposed(t)
	for name, labels := range ofKubeStateMetrics {
		there[name] = labels
	}
	queries.Check(t, "../../../../config/prometheus/node-rules.yaml", 6, there)
	queries.Check(t, "../../../../config/prometheus/node-dashboard.json", 12, there)
}

// TestPage checks that docs/node.md has a row for every metric, reason and Event, and no other.
func TestPage(t *testing.T) {
	text, err := os.ReadFile("../../../../docs/node.md")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{eventFailed, eventRefused, eventLate, eventChanged}
	for name := range exposed(t) {
		if strings.HasPrefix(name, "shunt_") {
			want = append(want, strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count"))
		}
	}
	for _, cause := range kernel.Causes() {
		want = append(want, string(cause))
	}
	_, section, _ := strings.Cut(string(text), "\n## Metrics and Events\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var got []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)").FindAllStringSubmatch(section, -1) {
		got = append(got, row[1])
	}
	slices.Sort(want)
	slices.Sort(got)
	if want = slices.Compact(want); !slices.Equal(got, want) {
		t.Errorf("the page has rows\n%q, want\n%q", got, want)
	}
}
