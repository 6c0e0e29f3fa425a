package podplan

import (
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
)

// Annotations is the unit of the pod's annotations: the status, and those that
// Prometheus and kubectl read.
type Annotations struct {
	// Added are those beside the status. Do not change them.
	Added map[string]string
	// Status is the status annotation's value; Plan.Record sets it.
	Status string

	replaced *string // the status annotation's value before, such as Istio's
}

// The annotations by which Prometheus finds what to scrape, of a convention
// that is older than its operator and that Istio's users know.
const (
	scrapeKey     = "prometheus.io/scrape"
	scrapePortKey = "prometheus.io/port"
	scrapePathKey = "prometheus.io/path"
)

// prometheusAnnotations have Prometheus scrape Envoy. They are shared: do not
// change them.
var prometheusAnnotations = map[string]string{
	scrapeKey:     "true",
	scrapePortKey: strconv.Itoa(int(interception.MetricsPort)),
	scrapePathKey: envoy.MetricsPath,
}

// defaultContainerKey is the default container of kubectl logs and kubectl exec,
// which otherwise is the first.
const defaultContainerKey = "kubectl.kubernetes.io/default-container"

// addedKeys are all annotations that an injector may add beside the status. undo
// ignores others in a status.
var addedKeys = append(slices.Sorted(maps.Keys(prometheusAnnotations)), defaultContainerKey)

// NewAnnotations plans those for Prometheus, if it is to scrape the proxy, and,
// if the proxy is a regular container and thus the first, the default container.
// A pod keeps its own: any of Prometheus' three means that it is scraped in
// another way, or not at all.
func NewAnnotations(pod *corev1.Pod, scrape, native bool) Annotations {
	for key := range prometheusAnnotations {
		_, present := pod.Annotations[key]
		scrape = scrape && !present
	}
	var planned Annotations
	if scrape {
		planned.Added = prometheusAnnotations
	}
	if _, present := pod.Annotations[defaultContainerKey]; !native && !present && len(pod.Spec.Containers) > 0 {
		all := map[string]string{defaultContainerKey: pod.Spec.Containers[0].Name}
		maps.Copy(all, planned.Added)
		planned.Added = all
	}
	if text, present := pod.Annotations[StatusKey]; present {
		planned.replaced = &text
	}
	return planned
}

func (a *Annotations) apply(edit *Edit) {
	all := make(map[string]string, len(a.Added)+1)
	maps.Copy(all, a.Added)
	all[StatusKey] = a.Status
	edit.annotate(all)
}

func (a *Annotations) record(status *Status) {
	status.Annotations, status.Replaced = a.Added, a.replaced
}

// undo keeps an annotation whose value has changed since: it is somebody else's.
func (*Annotations) undo(edit *Edit, status Status) {
	var unwanted []string
	for _, key := range addedKeys {
		recorded, isRecorded := status.Annotations[key]
		if actual, present := edit.pod.Annotations[key]; isRecorded && present && actual == recorded {
			unwanted = append(unwanted, key)
		}
	}
	if status.Replaced != nil {
		edit.annotate(map[string]string{StatusKey: *status.Replaced})
	} else {
		unwanted = append(unwanted, StatusKey)
	}
	edit.unannotate(unwanted...)
}

func (a *Annotations) compare(pod *corev1.Pod) (same bool, changed []string) {
	same = true
	for key, value := range a.Added {
		same = same && pod.Annotations[key] == value
	}
	return same, missing("annotation", slices.Sorted(maps.Keys(a.Added)), slices.Collect(maps.Keys(pod.Annotations)))
}
