package podplan

import (
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
)

// RulesKey is the annotation that tells the node's agent what to do in the pod's
// network namespace: interception.NodeRules as text. Only the injector sets it, so
// that undo takes out any value.
const RulesKey = "shunt.dev/rules"

// Annotations is the unit of the pod's annotations: the status, the rules for the
// node's agent, and those that Prometheus and kubectl read.
type Annotations struct {
	// Rules is the value of RulesKey; empty if the pod is to have none.
	Rules string
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
	all := make(map[string]string, len(a.Added)+2)
	maps.Copy(all, a.Added)
	all[StatusKey] = a.Status
	if a.Rules != "" {
		all[RulesKey] = a.Rules
	}
	edit.annotate(all)
}

func (a *Annotations) record(status *Status) {
	status.Annotations, status.Replaced = a.Added, a.replaced
}

// undo keeps an annotation whose value has changed since: it is somebody else's.
func (*Annotations) undo(edit *Edit, status Status) {
	var unwanted []string
	if _, present := edit.pod.Annotations[RulesKey]; present {
		unwanted = append(unwanted, RulesKey)
	}
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
	same = pod.Annotations[RulesKey] == a.Rules
	for key, value := range a.Added {
		same = same && pod.Annotations[key] == value
	}
	return same, missing("annotation", slices.Sorted(maps.Keys(a.Added)), slices.Collect(maps.Keys(pod.Annotations)))
}
