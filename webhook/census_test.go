package webhook

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
)

// listing is an API server with two namespaces, one of which asks for the proxy, and with pods, of which it
// serves a few at a time.
type listing struct {
	client.Reader

	pods  []corev1.Pod
	page  int
	fails error
	seen  func()
}

func (l *listing) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	if key.Name == "gone" {
		return errors.New("not found")
	}
	into.(*metav1.PartialObjectMetadata).Labels = map[string]string{"kubernetes.io/metadata.name": key.Name}
	if key.Name != "quiet" {
		into.GetLabels()[annotation.NamespaceInjectionKey] = "enabled"
	}
	return nil
}

func (l *listing) List(_ context.Context, into client.ObjectList, opts ...client.ListOption) error {
	if l.fails != nil {
		return l.fails
	}
	if configurations, is := into.(*admissionregistrationv1.MutatingWebhookConfigurationList); is {
		configurations.Items = []admissionregistrationv1.MutatingWebhookConfiguration{{Webhooks: []admissionregistrationv1.MutatingWebhook{
			{Name: "another.example"},
			{Name: "namespace.shunt.dev", NamespaceSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
				{Key: "kubernetes.io/metadata.name", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"kube-system"}},
			}}},
		}}}
		return nil
	}
	var asked client.ListOptions
	asked.ApplyOptions(opts)
	var from int
	if asked.Continue != "" {
		if _, err := fmt.Sscan(asked.Continue, &from); err != nil {
			return err
		}
	}
	to := min(from+l.page, len(l.pods))
	list := into.(*corev1.PodList)
	for i := from; i < to; i++ {
		list.Items = append(list.Items, *l.pods[i].DeepCopy()) // as decoding makes them
	}
	if to < len(l.pods) {
		list.Continue = fmt.Sprint(to)
	}
	if l.seen != nil {
		l.seen()
	}
	return nil
}

func newCensus(t testing.TB, cfg config.Config, api *listing) *census {
	t.Helper()
	return &census{
		live: api, cache: api, current: &NewHandler(cfg, StaticNamespaces{}, NewMetrics()).current, counts: newPodCounts(),
		every: time.Minute, log: logr.Discard(),
	}
}

// injectedBy returns a pod as a configuration makes it.
func injectedBy(t testing.TB, cfg config.Config, pod *corev1.Pod) corev1.Pod {
	t.Helper()
	result := inject.NewInjector(cfg).Inject(pod, annotation.Namespace{
		Name: pod.Namespace, Labels: map[string]string{annotation.NamespaceInjectionKey: "enabled"},
	})
	if !result.Inject {
		t.Fatal(result.Reason)
	}
	return *result.Pod.DeepCopy()
}

func appPod(namespace, name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
}

// TestCensus checks that pods are counted as they stand, over several pages, and that counts that are not
// known are not told.
func TestCensus(t *testing.T) {
	cfg := config.Default()
	before := cfg
	before.Concurrency = 7
	declines := appPod("shop", "declines")
	declines.Labels = map[string]string{annotation.InjectKey: "false"}
	unwanted := injectedBy(t, cfg, appPod("shop", "unwanted"))
	unwanted.Labels = map[string]string{annotation.InjectKey: "false"}
	denied := appPod("shop", "denied")
	denied.Annotations = map[string]string{annotation.InterceptionModeKey: "PROXY"}
	ended := appPod("shop", "ended")
	ended.Status.Phase = corev1.PodSucceeded
	ofNode := appPod("shop", "of-the-node")
	ofNode.Spec.HostNetwork = true
	api := &listing{page: 3, pods: []corev1.Pod{
		injectedBy(t, cfg, appPod("shop", "one")), injectedBy(t, cfg, appPod("shop", "two")), injectedBy(t, before, appPod("shop", "old")),
		*appPod("shop", "missed"), *appPod("kube-system", "exempt"), *appPod("quiet", "not-asked-for"), *appPod("gone", "nobody-knows"),
		*declines, unwanted, *denied, *ended, *ofNode,
	}}
	c := newCensus(t, cfg, api)
	found, err := c.count(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[inject.Standing]int{
		inject.StandingCurrent: 2, inject.StandingOutdated: 1, inject.StandingMissing: 1, inject.StandingUnwanted: 1,
		inject.StandingDenied: 1, inject.StandingNone: 5,
	}
	if !maps.Equal(found, want) {
		t.Errorf("counted %v, want %v", found, want)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c.counts)
	for step, want := range []int{0, len(inject.Standings()), 0} {
		if got, err := testutil.GatherAndCount(registry); err != nil || got != want {
			t.Errorf("step %d: %d values, error %v, want %d", step, got, err, want)
		}
		api.fails = map[int]error{1: errors.New("pods is forbidden")}[step]
		if found, err = c.count(t.Context()); (err != nil) != (step == 1) {
			t.Errorf("step %d: %v", step, err)
		}
		c.counts.set(found)
	}
	c.current.waitForVersion()
	if _, err := c.count(t.Context()); err == nil {
		t.Error("counted before the API server's version is known, by which pods are made")
	}
}

// BenchmarkCensus counts 10,000 pods that have the proxy. Their decoding is not in it.
func BenchmarkCensus(b *testing.B) {
	cfg := config.Default()
	pod := injectedBy(b, cfg, appPod("shop", "one"))
	api := &listing{page: censusPage}
	for range 10_000 {
		api.pods = append(api.pods, pod)
	}
	var start, now runtime.MemStats
	most := uint64(0)
	runtime.GC()
	runtime.ReadMemStats(&start)
	api.seen = func() {
		runtime.ReadMemStats(&now)
		most = max(most, now.HeapAlloc-min(now.HeapAlloc, start.HeapAlloc))
	}
	c := newCensus(b, cfg, api)
	for b.Loop() {
		if found, err := c.count(b.Context()); err != nil || found[inject.StandingCurrent] != 10_000 {
			b.Fatal(found, err)
		}
	}
	b.ReportMetric(float64(most)/(1<<20), "peak-MB")
}
