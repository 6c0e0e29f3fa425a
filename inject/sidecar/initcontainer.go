package sidecar

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// NetAdmin is the capability to change a network namespace, and to open
// transparent and marked sockets in it.
const NetAdmin corev1.Capability = "NET_ADMIN"

// runDirectory is where iptables-legacy makes its lock, xtables.lock.
const runDirectory = "/run"

// InitContainer returns the container that runs shunt-init with the spec as its
// arguments. In mode NONE it only writes the proxy's files, and needs no
// capability. If the node's agent writes the rules, it is the gate, which waits for
// them, and needs none either. There is no shell, so that nothing in a spec can become a command.
func InitContainer(mode interception.Mode, spec interception.Spec, opts interception.Options, cfg config.Config) corev1.Container {
	container := corev1.Container{
		Name:                     podplan.InitContainerName,
		Image:                    cfg.InitImage,
		ImagePullPolicy:          cfg.PullPolicy,
		Args:                     interception.Args(spec, opts),
		Resources:                *cfg.InitResources.DeepCopy(),
		VolumeMounts:             []corev1.VolumeMount{podplan.SharedMount(false), noToken()},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		// Added capabilities are not ambient in a container: only uid 0 has
		// them.
		SecurityContext: securityContext(0, 0, NetAdmin),
	}
	if FromNode(mode, cfg) {
		container.Args = append([]string{interception.GateCommand}, container.Args...)
		container.SecurityContext = securityContext(gateID(cfg.ProxyUID), gateID(cfg.ProxyGID))
		return container
	}
	if mode == interception.ModeNone {
		container.Args = []string{interception.ShareCommand, "--envoy=" + opts.Envoy, opts.Share}
		container.SecurityContext = securityContext(cfg.ProxyUID, cfg.ProxyGID)
		return container
	}
	if cfg.Backend == interception.BackendLegacy {
		// iptables-legacy uses a raw socket, which needs NET_RAW, and a lock
		// file in /run; iptables-nft needs neither.
		container.SecurityContext = securityContext(0, 0, NetAdmin, netRaw)
		container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{Name: podplan.RunVolume, MountPath: runDirectory})
	}
	return container
}

// FromNode reports whether the node's agent writes the pod's rules.
func FromNode(mode interception.Mode, cfg config.Config) bool {
	return mode != interception.ModeNone && cfg.InterceptFrom == config.InterceptFromNode
}

// SparesConntrack reports whether nothing of a pod in TPROXY is tracked. So it is
// wherever that is possible:
//
//	the node's agent writes the rules     | it sets sysctls of the pod's network namespace, as no container may
//	the proxy is Envoy, without additions | its bootstrap gives every socket that it connects a mark
//	nobody else has the proxy's identity  | such sockets have no mark
//	no container may mark its sockets     | the mark of the app's connection would be lost
//	the spec is valid with NoConntrack    | that refuses DNS capture and all else that needs conntrack
func SparesConntrack(pod *corev1.Pod, req annotation.Request, cfg config.Config, spec interception.Spec) bool {
	ownEnvoy := cfg.Sidecar.Type != config.SidecarCustom && req.BootstrapOverride == ""
	shared := req.AllowProxyIdentity != nil && *req.AllowProxyIdentity
	spec.NoConntrack = true
	return FromNode(req.Mode, cfg) && ownEnvoy && !shared && !marksPackets(pod) && spec.Validate() == nil
}

// marksPackets reports whether a container of the pod asks for what marking its
// packets takes. A root container may have NET_RAW without asking, which is enough
// from Linux 5.17 on.
func marksPackets(pod *corev1.Pod) bool {
	for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		sc := container.SecurityContext
		if sc == nil || podplan.IsContainerName(container.Name) {
			continue
		}
		privileged := sc.Privileged != nil && *sc.Privileged
		added := sc.Capabilities != nil &&
			(has(sc.Capabilities.Add, allOfThem) || has(sc.Capabilities.Add, NetAdmin) || has(sc.Capabilities.Add, netRaw))
		if privileged || added {
			return true
		}
	}
	return false
}

// gateID returns a user or group for the gate: not root's, and not the proxy's,
// whose connections are not intercepted, so that the gate could prove nothing.
func gateID(proxys int64) int64 {
	const nonroot = 65532
	if proxys == nonroot {
		return nonroot - 1
	}
	return nonroot
}

// InitVolumes returns the volumes that shunt-init writes to: one for the proxy's
// files and itself (5 MB, and twice that while a copy is replaced), and for
// iptables-legacy /run, for an empty file.
func InitVolumes(mode interception.Mode, cfg config.Config) []corev1.Volume {
	volumes := []corev1.Volume{inMemory(podplan.SharedVolume, "16Mi")}
	if mode != interception.ModeNone && !FromNode(mode, cfg) && cfg.Backend == interception.BackendLegacy {
		volumes = append(volumes, inMemory(podplan.RunVolume, "64Ki"))
	}
	return volumes
}

// inMemory returns an emptyDir in memory: one on the node's disk keeps the cluster
// autoscaler from removing the node.
func inMemory(name, size string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
		Medium: corev1.StorageMediumMemory, SizeLimit: new(resource.MustParse(size)),
	}}}
}

// securityContext returns a security context with these ids and only these
// capabilities.
func securityContext(uid, gid int64, capabilities ...corev1.Capability) *corev1.SecurityContext {
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
