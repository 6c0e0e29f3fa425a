package podplan

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
)

// StatusKey is the annotation that records what the injector added; see Status.
const StatusKey = "sidecar.istio.io/status"

// statusVersion is that of Status's format. An injector takes a pod's status
// of another version, such as Istio's own, which has none, for no status.
const statusVersion = "1"

// Status is the value of StatusKey: the names of what was added to the pod,
// in the form that Istio's users know, and the version of that form; and what
// was changed in it, as it was. A native sidecar counts among the init
// containers, where Kubernetes keeps it.
type Status struct {
	InitContainers   []string `json:"initContainers"`
	Containers       []string `json:"containers"`
	Volumes          []string `json:"volumes"`
	ImagePullSecrets []string `json:"imagePullSecrets"`
	Sysctls          []string `json:"sysctls,omitempty"`
	Probes           []Probe  `json:"probes,omitempty"`
	// Annotations are those beside this one, with their values.
	Annotations map[string]string `json:"annotations,omitempty"`
	// Resources are those that the pod as a whole had before.
	Resources *corev1.ResourceRequirements `json:"resources,omitempty"`
	// Replaced is the value that the annotation had before, such as Istio's.
	Replaced *string `json:"replaced,omitempty"`
	Revision string  `json:"revision"`
	Version  string  `json:"version"`
}

// String is the status as the annotation has it.
func (s Status) String() string { return string(encode(s)) }

// ReadStatus returns the status that an injector wrote into the pod. It is not
// ok where there is none or where it does not read as one; that a status is
// there says nothing yet of what the pod really has.
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
