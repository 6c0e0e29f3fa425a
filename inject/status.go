package inject

import (
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Names of what the injector adds to a pod. Nothing else in a pod may have
// them.
const (
	InitContainerName  = "shunt-init"
	ProxyContainerName = "shunt-proxy"
	// runVolume gives iptables-legacy a place for its lock.
	runVolume = "shunt-run"
)

var (
	containerNames = []string{InitContainerName, ProxyContainerName}
	volumeNames    = []string{runVolume}
)

// statusVersion is that of Status's format. An injector takes a pod's status
// of another version, such as Istio's own, which has none, for no status.
const statusVersion = "1"

// Status is the value of StatusKey: the names of what was added to the pod,
// in the form that Istio's users know, and the version of that form. A native
// sidecar counts among the init containers, where Kubernetes keeps it.
type Status struct {
	InitContainers   []string `json:"initContainers"`
	Containers       []string `json:"containers"`
	Volumes          []string `json:"volumes"`
	ImagePullSecrets []string `json:"imagePullSecrets"`
	Revision         string   `json:"revision"`
	Version          string   `json:"version"`
}

// String is the status as the annotation has it.
func (s Status) String() string {
	text, err := json.Marshal(s)
	if err != nil {
		panic("strings always marshal: " + err.Error())
	}
	return string(text)
}

// ReadStatus returns the status that an injector wrote into the pod. It is not
// ok where there is none or where it does not read as one; that a status is
// there says nothing yet of what the pod really has.
func ReadStatus(pod *corev1.Pod) (status Status, ok bool) {
	text, present := pod.Annotations[StatusKey]
	if !present {
		return Status{}, false
	}
	if err := json.Unmarshal([]byte(text), &status); err != nil || status.Version != statusVersion {
		return Status{}, false
	}
	return status, true
}

// withoutOurs returns the pod less what its own status records, where that
// has one of our names: the pod as it was before it was injected.
func withoutOurs(pod *corev1.Pod) *corev1.Pod {
	pod = pod.DeepCopy()
	status, ok := ReadStatus(pod)
	if !ok {
		return pod
	}
	pod.Spec.InitContainers = slices.DeleteFunc(pod.Spec.InitContainers, func(c corev1.Container) bool {
		return slices.Contains(containerNames, c.Name) && slices.Contains(status.InitContainers, c.Name)
	})
	pod.Spec.Volumes = slices.DeleteFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		return slices.Contains(volumeNames, v.Name) && slices.Contains(status.Volumes, v.Name)
	})
	if len(pod.Spec.InitContainers) == 0 {
		pod.Spec.InitContainers = nil
	}
	if len(pod.Spec.Volumes) == 0 {
		pod.Spec.Volumes = nil
	}
	delete(pod.Annotations, StatusKey)
	return pod
}
