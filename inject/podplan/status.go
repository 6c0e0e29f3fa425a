package podplan

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// StatusKey is the annotation that records what the injector added; see Status.
const StatusKey = "sidecar.istio.io/status"

// statusVersion is the version of Status's format. A status of another version,
// such as Istio's own, which has none, counts as no status.
const statusVersion = "1"

// Status is the value of StatusKey: the names of what was added to the pod, in
// Istio's format, the version of this format, and the previous values of what was
// changed. A native sidecar is among the init containers, as in Kubernetes.
type Status struct {
	InitContainers   []string `json:"initContainers"`
	Containers       []string `json:"containers"`
	Volumes          []string `json:"volumes"`
	ImagePullSecrets []string `json:"imagePullSecrets"`
	Sysctls          []string `json:"sysctls,omitempty"`
	Probes           []Probe  `json:"probes,omitempty"`
	// Annotations are those beside this one, with their values.
	Annotations map[string]string `json:"annotations,omitempty"`
	// Resources are the previous ones of the pod as a whole.
	Resources *corev1.ResourceRequirements `json:"resources,omitempty"`
	// Replaced is the annotation's previous value, such as Istio's.
	Replaced *string `json:"replaced,omitempty"`
	// Mode and InjectorVersion, that of the Shunt that injected the pod, are for
	// people and for shunt list. Statuses of older versions have neither.
	Mode            interception.Mode `json:"mode,omitempty"`
	InjectorVersion string            `json:"injectorVersion,omitempty"`
	Revision        string            `json:"revision"`
	Version         string            `json:"version"`
}

// String returns the annotation's value.
func (s Status) String() string { return string(encode(s)) }

// sameAs reports whether a pod's status records what a plan's does. Which version
// of Shunt wrote it does not count: during a rollout, replicas of two versions see
// each other's pods. An older version wrote no mode; the containers' arguments,
// which are compared as well, have it.
func (s Status) sameAs(planned Status) bool {
	planned.InjectorVersion = s.InjectorVersion
	if s.Mode == "" {
		planned.Mode = ""
	}
	return equality.Semantic.DeepEqual(s, planned)
}

// ReadStatus returns the status in the pod's annotations. ok is false if there is
// none or it is malformed. A status does not prove that the pod has what it
// records.
func ReadStatus(pod *corev1.Pod) (status Status, ok bool) {
	text, present := pod.Annotations[StatusKey]
	if !present || len(text) > apivalidation.TotalAnnotationSizeLimitB { // which no API server keeps
		return Status{}, false
	}
	if err := json.Unmarshal([]byte(text), &status); err != nil || status.Version != statusVersion {
		return Status{}, false
	}
	return status, true
}
