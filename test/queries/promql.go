package queries

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// ofTarget are the labels that Prometheus adds to everything it scrapes, the one that
// a PodMonitor adds, and that of a histogram's buckets.
var ofTarget = []string{"job", "namespace", "pod", "container", "instance", "endpoint", "node", "le"}

// Exposed returns the metrics of registries, with their labels.
func Exposed(t *testing.T, registries ...prometheus.Gatherer) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for _, registry := range registries {
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

// Check checks that every metric and label of a file's queries is there, and that the
// file has some queries at least.
func Check(t *testing.T, path string, least int, there map[string][]string) {
	t.Helper()
	all := Of(t, path)
	if len(all) < least {
		t.Errorf("%s: %d queries, want %d at least", path, len(all), least)
	}
	for _, expression := range all {
		for _, wrong := range wrongIn(expression, there) {
			t.Errorf("%s: %q: %s", path, expression, wrong)
		}
	}
}

// wrongIn returns what of a query is not there.
func wrongIn(expression string, there map[string][]string) (wrong []string) {
	q, err := readQuery(expression)
	if err != nil {
		return []string{err.Error()}
	}
	known := slices.Clone(ofTarget)
	for name, matched := range q.metrics {
		labels, is := there[name]
		if !is {
			wrong = append(wrong, "there is no metric "+name)
		}
		known = append(known, labels...)
		for _, label := range matched {
			if !slices.Contains(labels, label) && !slices.Contains(ofTarget, label) {
				wrong = append(wrong, name+" has no label "+label)
			}
		}
	}
	for _, label := range q.groups {
		if !slices.Contains(known, label) {
			wrong = append(wrong, "grouped by "+label+", which is no label")
		}
	}
	return wrong
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
	functions := []string{"sum", "min", "max", "count", "rate", "increase", "absent", "time", "scalar", "histogram_quantile"}
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
