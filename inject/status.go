package inject

import (
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
)

// Names of what the injector adds to a pod. Nothing else in a pod may have
// them.
const (
	InitContainerName  = "shunt-init"
	ProxyContainerName = "shunt-proxy"
	// runVolume gives iptables-legacy a place for its lock.
	runVolume = "shunt-run"
	// sharedVolume holds what shunt-init leaves for the proxy: Envoy's bootstrap,
	// the pod's resolvers, and itself, to drain Envoy.
	sharedVolume = "shunt-shared"
)

var (
	containerNames = []string{InitContainerName, ProxyContainerName}
	volumeNames    = []string{runVolume, sharedVolume}
)

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
	if !present || len(text) > apivalidation.TotalAnnotationSizeLimitB { // which no API server keeps
		return Status{}, false
	}
	if err := json.Unmarshal([]byte(text), &status); err != nil || status.Version != statusVersion {
		return Status{}, false
	}
	return status, true
}

// withoutOurs returns the pod as it was before it was injected: less what its
// own status records, where that is ours. A pod without a status is returned
// itself; the one that is given is never changed. Custom are the names of the
// volumes of a custom sidecar.
func withoutOurs(pod *corev1.Pod, custom []string) *corev1.Pod {
	status, ok := ReadStatus(pod)
	if !ok {
		return pod
	}
	pod = pod.DeepCopy()
	recorded := setOf(status.InitContainers)
	pod.Spec.InitContainers = slices.DeleteFunc(pod.Spec.InitContainers, func(c corev1.Container) bool {
		return slices.Contains(containerNames, c.Name) && recorded[c.Name]
	})
	dropContainers(pod, status.Containers)
	dropVolumes(pod, status.Volumes, custom)
	if len(pod.Spec.InitContainers) == 0 {
		pod.Spec.InitContainers = nil
	}
	if len(pod.Spec.Volumes) == 0 {
		pod.Spec.Volumes = nil
	}
	if status.Resources != nil {
		pod.Spec.Resources = status.Resources
	}
	unsetSysctls(pod, status.Sysctls)
	unsetProbes(pod, status.Probes)
	dropPullSecrets(pod, status.ImagePullSecrets)
	dropAnnotations(pod, status.Annotations)
	delete(pod.Annotations, StatusKey)
	if status.Replaced != nil {
		pod.Annotations[StatusKey] = *status.Replaced
	}
	return pod
}

// dropContainers takes the ordinary containers that a status records out of a
// pod. One without any other is not ours: no pod is only a proxy's.
func dropContainers(pod *corev1.Pod, recorded []string) {
	known := setOf(recorded)
	ours := func(c corev1.Container) bool { return slices.Contains(containerNames, c.Name) && known[c.Name] }
	if slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return !ours(c) }) {
		pod.Spec.Containers = slices.DeleteFunc(pod.Spec.Containers, ours)
	}
}

// dropVolumes takes those that a status records out of a pod that is without our
// containers, where they are the injector's: by their names, by the pod's own
// word that they are the proxy's, or, where the names in the configuration were
// others when the pod was injected, because no container that is left mounts
// them. A status may have been copied from another pod, and must not take an
// application's volume away.
func dropVolumes(pod *corev1.Pod, recorded, custom []string) {
	known := setOf(recorded)
	ours := setOf(slices.Concat(volumeNames, custom, userVolumeNames(pod)))
	used := map[string]bool{}
	eachContainer(pod, func(_ string, _ int, c *corev1.Container) bool {
		for i := range c.VolumeMounts {
			used[c.VolumeMounts[i].Name] = true
		}
		for i := range c.VolumeDevices {
			used[c.VolumeDevices[i].Name] = true
		}
		return true
	})
	pod.Spec.Volumes = slices.DeleteFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		return known[v.Name] && (ours[v.Name] || !used[v.Name])
	})
}

func volumesNamed(volumes []corev1.Volume) []string {
	names := make([]string, len(volumes))
	for i, v := range volumes {
		names[i] = v.Name
	}
	return names
}
