package inject

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
)

// The annotations by which Prometheus finds what to scrape, of a convention
// that is older than its operator and that Istio's users know.
const (
	scrapeKey     = "prometheus.io/scrape"
	scrapePortKey = "prometheus.io/port"
	scrapePathKey = "prometheus.io/path"
)

// scraped are those of a pod whose metrics are Envoy's. They are shared, and
// never changed.
var scraped = map[string]string{
	scrapeKey:     "true",
	scrapePortKey: strconv.Itoa(int(interception.MetricsPort)),
	scrapePathKey: envoy.MetricsPath,
}

// addedKeys are the annotations that an injector may add to a pod, beside its
// status. A status that records another one is not believed.
var addedKeys = append(slices.Sorted(maps.Keys(scraped)), defaultContainerKey)

// defaultContainerKey names the container that kubectl logs and kubectl exec
// mean where they name none, which is the first one otherwise.
const defaultContainerKey = "kubectl.kubernetes.io/default-container"

// addedAnnotations are those that a pod is given, in classic order with the
// container that stood first.
func addedAnnotations(pod *corev1.Pod, cfg Config) map[string]string {
	added := prometheusAnnotations(pod, cfg)
	if _, present := pod.Annotations[defaultContainerKey]; cfg.native() || present || len(pod.Spec.Containers) == 0 {
		return added
	}
	all := map[string]string{defaultContainerKey: pod.Spec.Containers[0].Name}
	maps.Copy(all, added)
	return all
}

// prometheusAnnotations are those for Prometheus. Any of the three that a pod has
// itself says that somebody scrapes it in another way, or that nobody should;
// and of what a custom sidecar serves nothing is known.
func prometheusAnnotations(pod *corev1.Pod, cfg Config) map[string]string {
	if !cfg.PrometheusAnnotations || cfg.Sidecar.Type == SidecarCustom {
		return nil
	}
	for key := range scraped {
		if _, present := pod.Annotations[key]; present {
			return nil
		}
	}
	return scraped
}

// dropAnnotations takes those that a status records out of a pod. One that has
// another value by now is somebody else's.
func dropAnnotations(pod *corev1.Pod, recorded map[string]string) {
	for key, value := range recorded {
		if have, present := pod.Annotations[key]; present && have == value && slices.Contains(addedKeys, key) {
			delete(pod.Annotations, key)
		}
	}
}

// hasAnnotations reports whether the pod has all of them.
func hasAnnotations(pod *corev1.Pod, want map[string]string) bool {
	for key, value := range want {
		if have, present := pod.Annotations[key]; !present || have != value {
			return false
		}
	}
	return true
}

// annotate returns the operations for the status and for what else is added. A
// template may have no metadata at all, which is given some then.
func (p Plan) annotate(pod, base *corev1.Pod) []Operation {
	status := p.Status.String()
	switch {
	case len(pod.Annotations) > 0:
		return p.annotateEach(pod, base, status)
	case equality.Semantic.DeepEqual(pod.ObjectMeta, metav1.ObjectMeta{}):
		return []Operation{add("/metadata", slices.Concat(json.RawMessage(`{"annotations":`), p.annotations(status), json.RawMessage(`}`)))}
	default:
		return []Operation{add("/metadata/annotations", p.annotations(status))}
	}
}

// annotations are all that are added, as a JSON object.
func (p Plan) annotations(status string) json.RawMessage {
	all := maps.Clone(p.Annotations)
	if all == nil {
		all = map[string]string{}
	}
	all[StatusKey] = status
	return encode(all)
}

// annotateEach leaves the pod's own annotations where they are.
func (p Plan) annotateEach(pod, base *corev1.Pod, status string) []Operation {
	pointer := func(key string) string { return "/metadata/annotations/" + strings.ReplaceAll(key, "/", "~1") }
	ops := []Operation{add(pointer(StatusKey), encode(status))}
	for _, key := range addedKeys {
		value, wanted := p.Annotations[key]
		_, had := pod.Annotations[key]
		_, kept := base.Annotations[key]
		switch {
		case wanted:
			ops = append(ops, add(pointer(key), encode(value)))
		case had && !kept:
			ops = append(ops, Operation{Op: "remove", Path: pointer(key)})
		}
	}
	return ops
}
