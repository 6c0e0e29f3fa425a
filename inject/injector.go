package inject

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// Injector injects by one configuration. It is for many pods: what takes long
// to make and depends on no pod is made once. It never changes.
type Injector struct {
	cfg Config
	// custom is the sidecar of SidecarCustom for each mode, less what depends
	// on the pod; nil where it is to be made anew for each pod.
	custom map[interception.Mode]corev1.Container

	always, never selectors
}

// NewInjector returns an Injector that goes by cfg, which must have passed
// Validate and must not be changed afterwards.
func NewInjector(cfg Config) *Injector {
	in := forOnePod(cfg)
	if cfg.Sidecar.Type == SidecarCustom {
		in.custom = map[interception.Mode]corev1.Container{}
		for _, mode := range modes {
			in.custom[mode] = mustMerge(mode, cfg)
		}
	}
	return in
}

// forOnePod is an Injector that has made nothing that it may not need.
func forOnePod(cfg Config) *Injector {
	return &Injector{cfg: cfg, always: mustCompile(cfg.AlwaysInjectSelector), never: mustCompile(cfg.NeverInjectSelector)}
}

// Result is what became of a pod.
type Result struct {
	Decision
	// Plan is what the pod gets or has; nil unless it is injected, now or
	// already.
	Plan *podplan.Plan
	// Pod is the injected pod, and Operations make it of the JSON of the pod that
	// flowed in; nil unless Inject. The pod shares memory with that one, and is
	// not to be changed.
	Pod        *corev1.Pod
	Operations []podplan.Operation
	// Warnings are for the pod's owner, one line each.
	Warnings []string
}

// merged is the custom sidecar for a mode. It is shared, and must not be
// changed.
func (in *Injector) merged(mode interception.Mode) corev1.Container {
	if made, ok := in.custom[mode]; ok {
		return made
	}
	return mustMerge(mode, in.cfg)
}

// Inject is Injector.Inject for a single pod.
func Inject(pod *corev1.Pod, ns Namespace, cfg Config) Result {
	return forOnePod(cfg).Inject(pod, ns)
}

// Restore undoes the injection of a pod: it takes out all that the pod's status
// records. It is not ok for a pod without a status that an injector of this
// version wrote. The pod is not changed.
//
// What a pod had of empty lists and maps cannot be told from their absence,
// nor can Kubernetes: they are absent afterwards.
func Restore(pod *corev1.Pod) (edit *podplan.Edit, ok bool) {
	return podplan.Undo(pod, userVolumeNames(pod))
}
