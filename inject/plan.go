package inject

import (
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// Plan is all that one pod gets.
type Plan struct {
	Mode interception.Mode
	// Spec and Options are what shunt-init is told; zero with ModeNone, which
	// has no init container.
	Spec    interception.Spec
	Options interception.Options

	// InitContainers go before the pod's own, in this order: the rules are
	// in place, and the proxy answers, before anything else of the pod runs.
	InitContainers []corev1.Container
	Volumes        []corev1.Volume
	Status         Status
}

// NewPlan says what goes where if the pod is injected, whether or not Decide
// would. The errors are all the fields for which it would be refused.
func NewPlan(pod *corev1.Pod, cfg Config) (Plan, field.ErrorList) {
	req, problems := readRequest(pod, Namespace{})
	plan, refusal := newPlan(pod, req, problems, cfg)
	return plan, refusal.Errors
}

// newPlan makes the plan, or a refusal with every field that stands in the way.
func newPlan(pod *corev1.Pod, req request, problems []problem, cfg Config) (Plan, Decision) {
	base := withoutOurs(pod)
	var refusal Decision
	for _, check := range []struct {
		reason Reason
		errs   field.ErrorList
	}{
		{ReasonInvalidAnnotation, podErrors(problems)},
		{ReasonNameTaken, takenNames(base)},
		{ReasonProxyIdentityTaken, takenIdentity(base, cfg)},
	} {
		if len(check.errs) > 0 && refusal.Reason == "" {
			refusal.Reason = check.reason
		}
		refusal.Errors = append(refusal.Errors, check.errs...)
	}
	if refusal.Refused() {
		return Plan{}, refusal
	}
	return settle(req, cfg), Decision{}
}

// settle turns a request that is in order into a plan.
func settle(req request, cfg Config) Plan {
	plan := Plan{Mode: req.mode}
	if req.mode != interception.ModeNone {
		plan.Spec = req.spec
		plan.Spec.ProxyUIDs = []uint32{numericID(cfg.ProxyUID)}
		plan.Spec.ProxyGIDs = []uint32{numericID(cfg.ProxyGID)}
		plan.Options = interception.DefaultOptions()
		plan.Options.Backend = cfg.Backend
		plan.InitContainers = append(plan.InitContainers, initContainer(plan.Spec, plan.Options, cfg))
		plan.Volumes = initVolumes(cfg)
	}
	plan.InitContainers = append(plan.InitContainers, sidecar(req.mode, cfg))
	plan.Status = plan.status(cfg)
	return plan
}

// numericID narrows an id that Config.Validate has passed.
func numericID(id int64) uint32 { return uint32(min(max(id, 0), math.MaxUint32)) }

func (p Plan) status(cfg Config) Status {
	status := Status{
		InitContainers: []string{}, Containers: []string{}, Volumes: []string{}, ImagePullSecrets: []string{},
		Revision: cfg.Revision, Version: statusVersion,
	}
	for _, c := range p.InitContainers {
		status.InitContainers = append(status.InitContainers, c.Name)
	}
	for _, v := range p.Volumes {
		status.Volumes = append(status.Volumes, v.Name)
	}
	return status
}

// appliedTo reports whether the pod has what the plan would put in, where it
// would put it. Fields that the API server or other webhooks fill in do not
// count; those that make the interception do.
func (p Plan) appliedTo(pod *corev1.Pod) bool {
	status, ok := ReadStatus(pod)
	if !ok || !equality.Semantic.DeepEqual(status, p.Status) || len(pod.Spec.InitContainers) < len(p.InitContainers) {
		return false
	}
	for i, planned := range p.InitContainers {
		if !sameWork(planned, pod.Spec.InitContainers[i]) {
			return false
		}
	}
	for _, planned := range p.Volumes {
		if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == planned.Name }) {
			return false
		}
	}
	return true
}

// sameWork reports whether the container does what the planned one would.
func sameWork(planned, actual corev1.Container) bool {
	work := func(c corev1.Container) corev1.Container {
		kept := corev1.Container{
			Name: c.Name, Image: c.Image, Command: c.Command, Args: c.Args, RestartPolicy: c.RestartPolicy,
		}
		if c.SecurityContext != nil {
			kept.SecurityContext = c.SecurityContext.DeepCopy()
			kept.SecurityContext.ProcMount = nil // an API server's default
		}
		return kept
	}
	return equality.Semantic.DeepEqual(work(planned), work(actual))
}
