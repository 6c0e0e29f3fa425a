package podplan

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/shunt-dev/shunt/initimage/envoy"
)

// Names of the volumes that the injector adds. No other volume may have them.
const (
	// RunVolume gives iptables-legacy a place for its lock.
	RunVolume = "shunt-run"
	// SharedVolume has the files that shunt-init writes for the proxy: Envoy's
	// bootstrap, the pod's resolvers, and itself, to drain Envoy.
	SharedVolume = "shunt-shared"
)

// IsVolumeName reports whether a name is one of the injector's volumes.
func IsVolumeName(name string) bool { return name == RunVolume || name == SharedVolume }

// SharedMount returns the mount of SharedVolume.
func SharedMount(readOnly bool) corev1.VolumeMount {
	return corev1.VolumeMount{Name: SharedVolume, MountPath: envoy.SharedDirectory, ReadOnly: readOnly}
}

// TokenDirectory is where the API server's plug-in ServiceAccount mounts the
// pod's token, into every container without a mount there.
const TokenDirectory = "/var/run/secrets/kubernetes.io/serviceaccount"

// Volumes is the unit of what our containers mount: Shunt's volumes, those of
// the configured sidecar, and those of the pod's annotations. They go behind the
// pod's own.
type Volumes []corev1.Volume

// VolumeNames returns the names of volumes.
func VolumeNames(volumes []corev1.Volume) []string { return namesOf(volumes, volumeName) }

func volumeName(v *corev1.Volume) string { return v.Name }

const volumesPath = "/spec/volumes"

func (v *Volumes) apply(edit *Edit) {
	extend(edit, volumesPath, &edit.pod.Spec.Volumes, *v)
}

func (v *Volumes) record(status *Status) { status.Volumes = VolumeNames(*v) }

// undo removes the recorded volumes that are the injector's: by name, by the
// configuration or the pod's annotations, or, in case the configuration had other
// names at the injection, because no remaining container mounts them. A status
// copied from another pod must not remove an application's volume.
func (*Volumes) undo(edit *Edit, status Status) {
	recorded, used := sets.New(status.Volumes...), sets.New[string]()
	EachContainer(&edit.pod, func(c Placed) bool {
		for i := range c.VolumeMounts {
			used.Insert(c.VolumeMounts[i].Name)
		}
		for i := range c.VolumeDevices {
			used.Insert(c.VolumeDevices[i].Name)
		}
		return true
	})
	drop(edit, volumesPath, &edit.pod.Spec.Volumes, func(v *corev1.Volume) bool {
		return recorded.Has(v.Name) && (IsVolumeName(v.Name) || edit.ownVolumes.Has(v.Name) || !used.Has(v.Name))
	})
}

func (v *Volumes) compare(pod *corev1.Pod) (same bool, changed []string) {
	if len(*v) == 0 {
		return true, nil
	}
	actual := make(map[string]*corev1.Volume, len(pod.Spec.Volumes))
	for i := range pod.Spec.Volumes {
		actual[pod.Spec.Volumes[i].Name] = &pod.Spec.Volumes[i]
	}
	for _, planned := range *v {
		switch has := actual[planned.Name]; {
		case has == nil:
			changed = append(changed, fmt.Sprintf("volume %s is missing", planned.Name))
		case !sameVolume(planned, *has):
			changed = append(changed, fmt.Sprintf("volume %s is another", planned.Name))
		}
	}
	return len(changed) == 0, changed
}

// Within reports whether a path is a folder or below it. Both must be clean.
func Within(path, folder string) bool { return strings.HasPrefix(path+"/", folder+"/") }
