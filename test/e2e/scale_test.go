package e2e_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/shunt-dev/shunt/test/bench"
)

// record writes the measurements to the documentation. Without it a run changes no file.
var record = flag.Bool("record", false, "write what is measured into docs/performance.md and docs/node.md")

// many is how many pods are created, by how many clients.
const many, atOnce = 500, 8

var _ = Describe("scale", func() {
	It("500 pods are created, and what the webhook adds is known from the API server's own metrics", func(ctx SpecContext) {
		without := createMany(ctx, newNamespace(ctx, false), false)
		before := admissions(ctx)
		with := createMany(ctx, newNamespace(ctx, true), true)
		after := admissions(ctx)
		taken := after.since(before)
		Expect(taken.count()).To(BeEquivalentTo(many))
		AddReportEntry(fmt.Sprintf("%d creations, %d at once, by the client: p50 %s, p99 %s; without the webhook: p50 %s, p99 %s",
			many, atOnce, quantileOf(with, 0.5), quantileOf(with, 0.99), quantileOf(without, 0.5), quantileOf(without, 0.99)))
		AddReportEntry(fmt.Sprintf(
			"%d admissions by the webhook, by the API server: mean %.1f ms, p50 %.1f ms, p99 %.1f ms (from buckets)",
			taken.count(), 1000*taken.sum/float64(taken.count()), 1000*taken.quantile(0.5), 1000*taken.quantile(0.99)))
		if *record {
			write("performance.md", "creations", fmt.Sprintf(
				"Measured on %d CPUs, which have %s programs at work; %d calls of the webhook.\n\n",
				runtime.NumCPU(), load(), taken.count())+
				"| what | p50 | p99 |\n|---|--:|--:|\n"+
				row("the API server's call of the webhook", seconds(taken.quantile(0.5)), seconds(taken.quantile(0.99)))+
				row("a creation with the webhook, for its client", quantileOf(with, 0.5), quantileOf(with, 0.99))+
				row("a creation without it", quantileOf(without, 0.5), quantileOf(without, 0.99)))
		}
		Expect(taken.quantile(0.99)).To(BeNumerically("<", 5), "the API server would have given up")
	})
})

// row returns a row of the table.
func row(what string, p50, p99 time.Duration) string {
	return fmt.Sprintf("| %s | %s | %s |\n", what, p50, p99)
}

// load returns the machine's load average of the last minute.
func load() string {
	GinkgoHelper()
	text, err := os.ReadFile("/proc/loadavg")
	Expect(err).NotTo(HaveOccurred())
	return strings.Fields(string(text))[0]
}

// seconds returns the seconds of a metric, to a tenth of a millisecond.
func seconds(number float64) time.Duration {
	return time.Duration(number * float64(time.Second)).Round(100 * time.Microsecond)
}

// write replaces the text between a section's markers in a document.
func write(document, section, text string) {
	GinkgoHelper()
	document = "../../docs/" + document
	old, err := os.ReadFile(document)
	Expect(err).NotTo(HaveOccurred())
	filled, err := bench.Section{Name: section, Text: text}.Fill(string(old))
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(document, []byte(filled), 0o600)).To(Succeed())
}

// createMany creates pods that no node runs, and returns how long each creation took, shortest
// first.
func createMany(ctx context.Context, namespace string, wanted bool) []time.Duration {
	GinkgoHelper()
	var mu sync.Mutex
	var group sync.WaitGroup
	all, wrong, numbers := []time.Duration{}, []string{}, make(chan int)
	for range atOnce {
		group.Go(func() {
			for number := range numbers {
				pod, begun := unscheduled(namespace, fmt.Sprintf("pod-%d", number)), time.Now()
				err := api.Create(ctx, pod)
				mu.Lock()
				all = append(all, time.Since(begun))
				if err != nil || injected(pod) != wanted {
					wrong = append(wrong, fmt.Sprintf("%s: %v", pod.Name, err))
				}
				mu.Unlock()
			}
		})
	}
	for number := range many {
		numbers <- number
	}
	close(numbers)
	group.Wait()
	Expect(wrong).To(BeEmpty())
	slices.Sort(all)
	return all
}

// quantileOf returns a quantile of sorted durations.
func quantileOf(sorted []time.Duration, quantile float64) time.Duration {
	return sorted[int(quantile*float64(len(sorted)-1))].Round(100 * time.Microsecond)
}

// histogram is the number of admissions by duration: a running total for each upper bound, and the
// sum of all durations.
type histogram struct {
	bounds []float64
	totals map[float64]uint64
	sum    float64
}

// admissions returns the API server's histogram of admissions by the webhook of injected namespaces
// that were not denied.
func admissions(ctx context.Context) histogram {
	GinkgoHelper()
	families, err := metrics(ctx, "/metrics")
	Expect(err).NotTo(HaveOccurred())
	all := histogram{totals: map[float64]uint64{}}
	for _, metric := range families["apiserver_admission_webhook_admission_duration_seconds"].GetMetric() {
		labels := map[string]string{}
		for _, label := range metric.GetLabel() {
			labels[label.GetName()] = label.GetValue()
		}
		if labels["name"] != "namespace.shunt.dev" || labels["rejected"] != "false" {
			continue
		}
		all.add(metric.GetHistogram())
	}
	return all
}

// add adds what a metric has counted.
func (h *histogram) add(counted *dto.Histogram) {
	h.sum += counted.GetSampleSum()
	for _, bucket := range counted.GetBucket() {
		h.totals[bucket.GetUpperBound()] += bucket.GetCumulativeCount()
	}
	h.bounds = slices.Sorted(maps.Keys(h.totals))
}

// since returns what was added after an earlier count.
func (h histogram) since(earlier histogram) histogram {
	added := histogram{bounds: h.bounds, totals: map[float64]uint64{}, sum: h.sum - earlier.sum}
	for bound, total := range h.totals {
		added.totals[bound] = total - earlier.totals[bound]
	}
	return added
}

func (h histogram) count() uint64 {
	if len(h.bounds) == 0 {
		return 0
	}
	return h.totals[h.bounds[len(h.bounds)-1]]
}

// quantile returns the duration below which a share of all is, with even distribution within a
// bucket, as in Prometheus.
func (h histogram) quantile(share float64) float64 {
	rank, below, lower := share*float64(h.count()), 0.0, 0.0
	for _, bound := range h.bounds {
		if total := float64(h.totals[bound]); total >= rank && total > below {
			return lower + (bound-lower)*(rank-below)/(total-below)
		}
		below, lower = float64(h.totals[bound]), bound
	}
	return lower
}

// metrics returns the metrics at a path of the API server.
func metrics(ctx context.Context, path string) (map[string]*dto.MetricFamily, error) {
	text, err := tryKubectl(ctx, "get", "--raw", path)
	if err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(strings.NewReader(text))
}
