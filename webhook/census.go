package webhook

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
)

// censusPage is how many pods are read at once, of which none is kept. It is small
// because anybody may make pods of more than a megabyte.
const censusPage = 25

// census counts the pods of the cluster by how they compare with new ones, again and
// again. It is a manager's Runnable. Nothing watches pods: that would keep all of
// them in memory.
type census struct {
	live, cache client.Reader // the API server, and the namespaces that are known
	current     *current
	counts      *podCounts
	every       time.Duration
	log         logr.Logger
}

// NeedLeaderElection returns false: each replica exposes the counts.
func (c *census) NeedLeaderElection() bool { return false }

// Start counts until ctx ends. Replicas that start together do not count together.
func (c *census) Start(ctx context.Context) error {
	wait := rand.N(min(c.every, time.Minute))
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		found, err := c.count(ctx)
		c.counts.set(found)
		if err != nil && ctx.Err() == nil {
			c.log.Error(err, "the pods could not be counted")
		}
		wait = c.every
	}
}

// count reads the pods page by page, and returns how many there are of each standing;
// nil with an error.
func (c *census) count(ctx context.Context) (map[inject.Standing]int, error) {
	injector := c.current.injector.Load()
	if injector == nil {
		return nil, fmt.Errorf("the API server's version is not known yet")
	}
	asked, err := readAsked(ctx, c.live)
	if err != nil {
		return nil, err
	}
	found, namespaces := map[inject.Standing]int{}, map[string]annotation.Namespace{}
	for next, more := "", true; more; more = next != "" {
		page := &corev1.PodList{}
		err := c.live.List(ctx, page, client.Limit(censusPage), client.Continue(next), client.MatchingFieldsSelector{
			Selector: fields.ParseSelectorOrDie("status.phase!=Succeeded,status.phase!=Failed"),
		})
		if err != nil {
			return nil, fmt.Errorf("list pods: %w", err)
		}
		for i := range page.Items {
			pod := &page.Items[i]
			ns, known := namespaces[pod.Namespace]
			if !known {
				if ns, err = namespaceFrom(ctx, c.cache, pod.Namespace); err != nil {
					continue // it has just been created or deleted
				}
				namespaces[pod.Namespace] = ns
			}
			standing, _ := injector.Stands(pod, ns, func() bool { return asked.about(pod, ns) })
			found[standing]++
		}
		next = page.Continue
	}
	return found, nil
}

// asked are the selectors by which API servers ask Shunt's webhooks.
type asked []struct{ namespace, object labels.Selector }

func readAsked(ctx context.Context, api client.Reader) (asked, error) {
	configurations := &admissionregistrationv1.MutatingWebhookConfigurationList{}
	if err := api.List(ctx, configurations); err != nil {
		return nil, fmt.Errorf("list webhook configurations: %w", err)
	}
	var all asked
	for _, configuration := range configurations.Items {
		for _, w := range configuration.Webhooks {
			if !strings.HasSuffix(w.Name, ".shunt.dev") {
				continue
			}
			namespace, err := selector(w.NamespaceSelector)
			if err != nil {
				return nil, fmt.Errorf("namespaceSelector of %s: %w", w.Name, err)
			}
			object, err := selector(w.ObjectSelector)
			if err != nil {
				return nil, fmt.Errorf("objectSelector of %s: %w", w.Name, err)
			}
			all = append(all, struct{ namespace, object labels.Selector }{namespace, object})
		}
	}
	return all, nil
}

// selector returns what API servers select by; without one they select all.
func selector(from *metav1.LabelSelector) (labels.Selector, error) {
	if from == nil {
		return labels.Everything(), nil
	}
	return metav1.LabelSelectorAsSelector(from)
}

func (a asked) about(pod *corev1.Pod, ns annotation.Namespace) bool {
	for _, by := range a {
		if by.namespace.Matches(labels.Set(ns.Labels)) && by.object.Matches(labels.Set(pod.Labels)) {
			return true
		}
	}
	return false
}

// podCounts are the results of the last census. Without one, or after one that
// failed, they have no value.
type podCounts struct {
	pods *prometheus.Desc

	mu    sync.Mutex
	found map[inject.Standing]int
}

func newPodCounts() *podCounts {
	return &podCounts{pods: prometheus.NewDesc("shunt_webhook_pods",
		"Pods of the cluster by how they compare with new ones (current, missing, outdated, denied, unwanted).",
		[]string{"state"}, nil)}
}

func (p *podCounts) set(found map[inject.Standing]int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.found = found
}

// Describe implements prometheus.Collector.
func (p *podCounts) Describe(descs chan<- *prometheus.Desc) { descs <- p.pods }

// Collect implements prometheus.Collector.
func (p *podCounts) Collect(values chan<- prometheus.Metric) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found == nil {
		return
	}
	for _, standing := range inject.Standings() {
		values <- prometheus.MustNewConstMetric(p.pods, prometheus.GaugeValue, float64(p.found[standing]), string(standing))
	}
}
