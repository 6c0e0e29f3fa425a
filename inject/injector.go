package inject

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/interception"
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
	// Pod is the injected pod; nil unless Inject.
	Pod *corev1.Pod
	// Warnings are for the pod's owner, one line each.
	Warnings []string
}

// Inject decides, plans and applies. The pod is not changed; of a refused or
// skipped pod the Result holds the reason and no pod.
func (in *Injector) Inject(pod *corev1.Pod, ns Namespace) Result {
	decision, plan, warnings := in.decide(pod, ns)
	result := Result{Decision: decision, Warnings: warnings}
	if decision.Inject {
		result.Pod = plan.Apply(pod)
	}
	return result
}

// merged is the custom sidecar for a mode. It is shared, and must not be
// changed.
func (in *Injector) merged(mode interception.Mode) corev1.Container {
	if made, ok := in.custom[mode]; ok {
		return made
	}
	return mustMerge(mode, in.cfg)
}

// Patch decides and plans, and returns the operations that put the plan into
// the pod's JSON; Result.Pod stays nil.
func (in *Injector) Patch(pod *corev1.Pod, ns Namespace) (Result, []Operation) {
	decision, plan, warnings := in.decide(pod, ns)
	result := Result{Decision: decision, Warnings: warnings}
	if !decision.Inject {
		return result, nil
	}
	return result, plan.Patch(pod)
}

// Inject is Injector.Inject for a single pod.
func Inject(pod *corev1.Pod, ns Namespace, cfg Config) Result {
	return forOnePod(cfg).Inject(pod, ns)
}

// Decide says whether the pod may and should be injected.
func Decide(pod *corev1.Pod, ns Namespace, cfg Config) Decision {
	decision, _, _ := forOnePod(cfg).decide(pod, ns)
	return decision
}

// NewPlan says what goes where if the pod is injected, whether or not Decide
// would. The errors are all the fields for which it would be refused.
func NewPlan(pod *corev1.Pod, ns Namespace, cfg Config) (Plan, field.ErrorList) {
	req, problems := readRequest(pod, ns)
	base := withoutOurs(pod, volumesNamed(req.volumes(cfg)))
	plan, refusal := forOnePod(cfg).plan(base, req, problems, req.over(cfg, base))
	return plan, refusal.Errors
}
