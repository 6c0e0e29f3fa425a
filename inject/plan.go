package inject

import (
	"fmt"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
)

// Plan is all that one pod gets.
type Plan struct {
	Mode interception.Mode
	// Spec and Options are what shunt-init is told; Spec is zero with ModeNone,
	// in which it only leaves the proxy its files.
	Spec    interception.Spec
	Options interception.Options

	// InitContainers go before the pod's own, in this order: the rules are
	// in place, and the proxy answers, before anything else of the pod runs.
	InitContainers []corev1.Container
	// Containers go before the pod's own: the proxy, in classic order.
	Containers []corev1.Container
	Volumes    []corev1.Volume
	Sysctls    []corev1.Sysctl // of the pod's security context
	Probes     []PlannedProbe  // of the pod's own containers
	// Resources are those of the pod as a whole, where it has some of its own.
	Resources *corev1.ResourceRequirements
	// Annotations are those beside the status. They are not to be changed.
	Annotations      map[string]string
	ImagePullSecrets []corev1.LocalObjectReference
	// Guaranteed says that what is put in requests just what it may have, for
	// the pod to stay so.
	Guaranteed bool
	Status     Status

	base *corev1.Pod // the pod that it was made for, without what an earlier injection left
}

// plan makes the plan for a pod that is without us, or a refusal with every
// field that stands in the way. The configuration is the one that holds for the
// pod.
func (in *Injector) plan(pod *corev1.Pod, req request, problems []problem, cfg Config) (Plan, Decision) {
	annotated := podFaults(problems)
	annotated.addAll(beyond(pod, req, cfg))
	annotated.merge(in.checkProxy(pod, req, cfg))
	taken := takenNames(pod, req.configuredVolumes(cfg))
	taken.merge(takenPaths(pod, req))
	var found faults
	var first Reason
	for _, check := range []struct {
		reason Reason
		faults faults
	}{
		{ReasonOtherMesh, otherMesh(pod, req)},
		{ReasonInvalidAnnotation, annotated},
		{ReasonNameTaken, taken},
		{ReasonProxyIdentityTaken, takenIdentity(pod, req, cfg)},
		{ReasonPortTaken, takenPorts(pod, req, cfg)},
		{ReasonPodSecurity, barredMode(req, cfg)},
	} {
		if len(check.faults.told) > 0 && first == "" {
			first = check.reason
		}
		// What its containers have of the proxy's would only say it once more.
		if first == ReasonOtherMesh && (check.reason == ReasonProxyIdentityTaken || check.reason == ReasonPortTaken) {
			continue
		}
		found.merge(check.faults)
	}
	if first != "" {
		return Plan{}, refuse(first, found)
	}
	plan := in.settle(pod, req, cfg)
	long := plan.tooLong(pod)
	long.merge(plan.unstartable(req))
	if len(long.told) > 0 {
		return Plan{}, refuse(ReasonInvalidAnnotation, long)
	}
	return plan, Decision{}
}

// settle turns a request that is in order into a plan.
func (in *Injector) settle(pod *corev1.Pod, req request, cfg Config) Plan {
	plan := Plan{Mode: req.mode, Options: interception.DefaultOptions(), base: pod}
	proxy := in.proxy(req, cfg)
	if guaranteed(pod) {
		cfg = plan.stayGuaranteed(req, &proxy, cfg)
	}
	plan.Options.Backend, plan.Options.Share = cfg.Backend, envoy.SharedDirectory
	if cfg.Sidecar.Type != SidecarCustom {
		plan.Options.Envoy = envoySettings(pod, req, cfg, proxy.Resources.Limits.Memory().Value()).String()
	}
	if req.mode != interception.ModeNone {
		plan.Spec = req.spec
		plan.Spec.ProxyUIDs = []uint32{numericID(cfg.ProxyUID)}
		plan.Spec.ProxyGIDs = []uint32{numericID(cfg.ProxyGID)}
		plan.Spec.DropInvalid = cfg.DropInvalid
		plan.Spec.DNS.Redirect = cfg.DNSCapture != DNSCaptureNone
		plan.Spec.DNS.All = cfg.DNSCapture == DNSCaptureAll
		plan.Probes = tcpProbes(pod, req)
	}
	plan.InitContainers = []corev1.Container{initContainer(req.mode, plan.Spec, plan.Options, cfg)}
	plan.place(proxy, cfg)
	plan.Volumes = append(initVolumes(req.mode, cfg), req.volumes(cfg)...)
	plan.Sysctls = sysctls(pod, plan.proxy(), req, cfg)
	plan.Annotations, plan.ImagePullSecrets = addedAnnotations(pod, cfg), addedPullSecrets(pod, cfg)
	plan.Status = plan.status(cfg)
	if plan.Resources = raised(pod, plan.proxy(), cfg); plan.Resources != nil {
		plan.Status.Resources = pod.Spec.Resources
	}
	if text, present := pod.Annotations[StatusKey]; present {
		plan.Status.Replaced = &text
	}
	return plan
}

// numericID narrows an id that Config.Validate has passed.
func numericID(id int64) uint32 { return uint32(min(max(id, 0), math.MaxUint32)) }

func (p Plan) status(cfg Config) Status {
	status := Status{
		InitContainers: []string{}, Containers: []string{}, Volumes: []string{}, ImagePullSecrets: []string{},
		Annotations: p.Annotations, Revision: cfg.Revision, Version: statusVersion,
	}
	for _, c := range p.InitContainers {
		status.InitContainers = append(status.InitContainers, c.Name)
	}
	for _, c := range p.Containers {
		status.Containers = append(status.Containers, c.Name)
	}
	for _, v := range p.Volumes {
		status.Volumes = append(status.Volumes, v.Name)
	}
	for _, s := range p.ImagePullSecrets {
		status.ImagePullSecrets = append(status.ImagePullSecrets, s.Name)
	}
	for _, s := range p.Sysctls {
		status.Sysctls = append(status.Sysctls, s.Name)
	}
	for _, probe := range p.Probes {
		status.Probes = append(status.Probes, probe.Probe)
	}
	return status
}

// tooLong finds that the pod's annotations would be longer than Kubernetes takes
// them: what the status has to record of a pod can be long.
func (p Plan) tooLong(pod *corev1.Pod) (found faults) {
	own := annotationsSize(pod.Annotations) - len(pod.Annotations[StatusKey])
	if size := own + len(p.Status.String()); size > apivalidation.TotalAnnotationSizeLimitB {
		found.add(func() *field.Error {
			return field.Invalid(paths[PodAnnotation].Key(StatusKey), fmt.Sprintf("%d bytes", size), fmt.Sprintf(
				"with what is to be recorded of the pod its annotations are too long; accepted: %d bytes in all",
				apivalidation.TotalAnnotationSizeLimitB))
		})
	}
	return found
}

// unstartable finds arguments that are longer than Linux takes them. Lists that
// become flags of shunt-init are cut into several; what else a pod can make long
// is in two places.
func (p Plan) unstartable(req request) (found faults) {
	refused := func(path *field.Path, value string, argument string) {
		found.add(func() *field.Error {
			return field.Invalid(path, value, fmt.Sprintf(
				"it makes an argument of %d bytes, with which Linux starts no program; accepted: what makes one of less than %d",
				len(argument), interception.MaxArgument))
		})
	}
	if settings := "--envoy=" + p.Options.Envoy; len(settings) >= interception.MaxArgument {
		if req.from.has(HTTPPortsKey) {
			refused(req.from.path(HTTPPortsKey), req.from.text(HTTPPortsKey), settings)
		} else {
			refused(specPath.Child("containers"), "the ports they declare for HTTP", settings)
		}
	}
	if len(req.componentLogLevel) >= interception.MaxArgument {
		refused(req.from.path(ComponentLogLevelKey), req.componentLogLevel, req.componentLogLevel)
	}
	return found
}

// appliedTo reports whether the pod has what the plan would put in, where it
// would put it, just as it would. What API servers and well-known webhooks set
// does not count; same.go has the list.
func (p Plan) appliedTo(pod *corev1.Pod) bool {
	status, ok := ReadStatus(pod)
	if !ok || !equality.Semantic.DeepEqual(status, p.Status) ||
		!begins(pod.Spec.InitContainers, p.InitContainers) || !begins(pod.Spec.Containers, p.Containers) {
		return false
	}
	containers := byName(pod)
	if slices.ContainsFunc(p.Probes, func(probe PlannedProbe) bool { return !probe.in(containers) }) {
		return false
	}
	if p.Resources != nil && !equality.Semantic.DeepDerivative(p.Resources, pod.Spec.Resources) {
		return false
	}
	var set []corev1.Sysctl
	if pod.Spec.SecurityContext != nil {
		set = pod.Spec.SecurityContext.Sysctls
	}
	return len(p.otherVolumes(pod)) == 0 && containsEach(set, p.Sysctls) &&
		containsEach(pod.Spec.ImagePullSecrets, p.ImagePullSecrets) && hasAnnotations(pod, p.Annotations)
}

// begins reports whether the planned containers are the first ones.
func begins(actual, planned []corev1.Container) bool {
	if len(actual) < len(planned) {
		return false
	}
	for i := range planned {
		if len(otherFields(planned[i], actual[i])) > 0 {
			return false
		}
	}
	return true
}

// otherVolumes are the names of planned volumes that the pod has not, or has
// otherwise.
func (p Plan) otherVolumes(pod *corev1.Pod) []string {
	if len(p.Volumes) == 0 {
		return nil
	}
	have := make(map[string]*corev1.Volume, len(pod.Spec.Volumes))
	for i := range pod.Spec.Volumes {
		have[pod.Spec.Volumes[i].Name] = &pod.Spec.Volumes[i]
	}
	var other []string
	for _, planned := range p.Volumes {
		if actual := have[planned.Name]; actual == nil || !sameVolume(planned, *actual) {
			other = append(other, planned.Name)
		}
	}
	return other
}

func containsEach[T comparable](actual, planned []T) bool {
	return !slices.ContainsFunc(planned, func(want T) bool { return !slices.Contains(actual, want) })
}
