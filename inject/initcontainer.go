package inject

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// netAdmin is the capability to change a network namespace, and to open
// transparent and marked sockets in it.
const netAdmin corev1.Capability = "NET_ADMIN"

// runDirectory is where iptables-legacy makes its lock, xtables.lock.
const runDirectory = "/run"

// initContainer runs shunt-init with the spec as its arguments. No shell is
// in between, so that nothing in a spec can become a command.
func initContainer(spec interception.Spec, opts interception.Options, cfg Config) corev1.Container {
	container := corev1.Container{
		Name:                     InitContainerName,
		Image:                    cfg.InitImage,
		ImagePullPolicy:          cfg.PullPolicy,
		Args:                     interception.Args(spec, opts),
		Resources:                *cfg.InitResources.DeepCopy(),
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		// Added capabilities are not ambient in a container: only uid 0 has
		// the use of them.
		SecurityContext: confined(0, 0, netAdmin),
	}
	if cfg.Backend == interception.BackendLegacy {
		// iptables-legacy talks through a raw socket, which takes NET_RAW,
		// and locks a file below /run; iptables-nft needs neither.
		container.SecurityContext = confined(0, 0, netAdmin, "NET_RAW")
		container.VolumeMounts = []corev1.VolumeMount{{Name: runVolume, MountPath: runDirectory}}
	}
	return container
}

// initVolumes gives shunt-init a writable /run where it needs one. It is kept
// in memory, and small: the lock is an empty file.
func initVolumes(cfg Config) []corev1.Volume {
	if cfg.Backend != interception.BackendLegacy {
		return nil
	}
	return []corev1.Volume{{
		Name: runVolume,
		VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
			Medium:    corev1.StorageMediumMemory,
			SizeLimit: new(resource.MustParse("64Ki")),
		}},
	}}
}

// confined is a security context with the given ids and nothing more than the
// given capabilities.
func confined(uid, gid int64, capabilities ...corev1.Capability) *corev1.SecurityContext {
	return &corev1.SecurityContext{
		RunAsUser:                new(uid),
		RunAsGroup:               new(gid),
		RunAsNonRoot:             new(uid != 0),
		Privileged:               new(false),
		AllowPrivilegeEscalation: new(false),
		ReadOnlyRootFilesystem:   new(true),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: capabilities},
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}
