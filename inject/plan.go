package inject

import (
	"fmt"
	"math"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/sidecar"
	"github.com/shunt-dev/shunt/inject/strict"
)

// plan returns the plan for a pod that is not injected, or a denial with every
// field in conflict. cfg is the configuration merged with the pod's annotations.
func (in *Injector) plan(
	pod *corev1.Pod, ns annotation.Namespace, req annotation.Request, problems []annotation.Problem, cfg config.Config,
) (*podplan.Plan, Decision) {
	annotated := podFaults(problems)
	annotated.AddAll(unsatisfiable(pod, req, cfg))
	annotated.AddAll(req.TooManyRanges(in.excluded))
	annotated.Merge(in.sidecar.Check(pod, req, cfg))
	taken := takenNames(pod, sidecar.ConfiguredVolumes(req, cfg))
	taken.Merge(takenPaths(pod, req))
	var found strict.Faults
	var first Reason
	for _, check := range []struct {
		reason Reason
		found  strict.Faults
	}{
		{ReasonOtherMesh, otherMesh(pod, req)},
		{ReasonInvalidAnnotation, annotated},
		{ReasonNameTaken, taken},
		{ReasonProxyIdentityTaken, takenIdentity(pod, req, cfg)},
		{ReasonPortTaken, takenPorts(pod, req, cfg)},
		{ReasonPodSecurity, podSecurityFaults(ns, req, cfg)},
	} {
		if len(check.found.Told) > 0 && first == "" {
			first = check.reason
		}
		// Another mesh's proxy often has our uid and ports: that would be the same
		// fault again.
		if first == ReasonOtherMesh && (check.reason == ReasonProxyIdentityTaken || check.reason == ReasonPortTaken) {
			continue
		}
		found.Merge(check.found)
	}
	if first != "" {
		return nil, deny(first, found)
	}
	plan := in.settle(pod, req, cfg)
	long := tooLong(plan, pod)
	long.Merge(unstartable(plan, req))
	if len(long.Told) > 0 {
		return nil, deny(ReasonInvalidAnnotation, long)
	}
	return plan, Decision{}
}

// settle turns a valid request into a plan.
func (in *Injector) settle(pod *corev1.Pod, req annotation.Request, cfg config.Config) *podplan.Plan {
	plan := &podplan.Plan{Mode: req.Mode, Options: interception.DefaultOptions()}
	proxy := in.sidecar.Container(req, cfg)
	if sidecar.IsGuaranteed(pod) {
		cfg, plan.Guaranteed = sidecar.KeepGuaranteed(req, &proxy, cfg)
	}
	plan.Options.Backend, plan.Options.Share = cfg.Backend, envoy.SharedDirectory
	fromNode := sidecar.FromNode(req.Mode, cfg)
	if fromNode {
		plan.Options.Backend = interception.BackendNFTables
	}
	leavesOutProbes := false
	if cfg.Sidecar.Type != config.SidecarCustom {
		settings := sidecar.EnvoySettings(pod, req, cfg, proxy.Resources.Limits.Memory().Value())
		plan.Options.Envoy = settings.String()
		leavesOutProbes = len(settings.Probes) > 0
	}
	if req.Mode != interception.ModeNone {
		plan.Spec = req.Spec
		if !req.Source.Has(annotation.ExcludeOutboundIPRangesKey) {
			plan.Spec.OutboundExcludeCIDRs = in.excluded
		}
		plan.Spec.ProxyUIDs = []uint32{numericID(cfg.ProxyUID)}
		plan.Spec.ProxyGIDs = []uint32{numericID(cfg.ProxyGID)}
		plan.Spec.DropInvalid = cfg.DropInvalid
		plan.Spec.DNS.Redirect = cfg.DNSCapture != config.DNSCaptureNone
		plan.Spec.DNS.All = cfg.DNSCapture == config.DNSCaptureAll
		plan.Spec.NoConntrack = sidecar.SparesConntrack(pod, req, cfg, plan.Spec)
	}
	var drawn *interception.PortRange
	if req.Mode == interception.ModeTProxy {
		drawn = cfg.TProxyPorts()
	}
	proxy = sidecar.Hold(proxy, cfg)
	initContainer := sidecar.InitContainer(req.Mode, plan.Spec, plan.Options, cfg)
	if leavesOutProbes {
		initContainer.Env = sidecar.NodeAddress()
	}
	plan.Containers = podplan.NewContainers(initContainer, proxy, cfg.Native())
	plan.Volumes = append(sidecar.InitVolumes(req.Mode, cfg), sidecar.Volumes(req, cfg)...)
	plan.Probes = tcpProbes(pod, req)
	plan.Sysctls = podplan.NewSysctls(pod, proxy, req.HealthPort(), drawn)
	plan.PullSecrets = podplan.NewPullSecrets(pod, cfg.ImagePullSecrets)
	plan.Resources = podplan.NewResources(pod, cfg.InitResources, proxy.Resources)
	plan.Annotations = podplan.NewAnnotations(pod, cfg.PrometheusAnnotations && cfg.Sidecar.Type != config.SidecarCustom, cfg.Native())
	if fromNode {
		plan.Annotations.Rules = interception.NodeRules{Spec: plan.Spec, IPv6: plan.Options.IPv6}.String()
	}
	plan.Record(cfg.Revision, in.version)
	return plan
}

// numericID converts an id that has passed Config.Validate.
func numericID(id int64) uint32 { return uint32(min(max(id, 0), math.MaxUint32)) }

// tooLong finds annotations that would exceed Kubernetes' limit with the status,
// which can be long, and lists that are too long for the node's agent.
func tooLong(p *podplan.Plan, pod *corev1.Pod) (found strict.Faults) {
	own := annotation.Size(pod.Annotations) - len(pod.Annotations[podplan.StatusKey]) - len(pod.Annotations[podplan.RulesKey])
	if size := own + len(p.Annotations.Status) + len(p.Annotations.Rules); size > apivalidation.TotalAnnotationSizeLimitB {
		found.Add(func() *field.Error {
			path := annotation.Paths[annotation.PodAnnotation].Key(podplan.StatusKey)
			return field.Invalid(path, fmt.Sprintf("%d bytes", size), fmt.Sprintf(
				"with what is to be recorded of the pod its annotations are too long; accepted: %d bytes in all",
				apivalidation.TotalAnnotationSizeLimitB))
		})
	}
	if rules := p.Annotations.Rules; rules != "" {
		if _, err := interception.ParseNodeRules(rules); err != nil {
			found.Add(func() *field.Error {
				path := annotation.Paths[annotation.PodAnnotation].Key(podplan.RulesKey)
				return field.Invalid(path, fmt.Sprintf("%d bytes", len(rules)), err.Error()+", or interceptFrom: pod")
			})
		}
	}
	return found
}

// unstartable finds arguments that exceed Linux' limit. Lists that become flags
// of shunt-init are cut into several; a pod can make two others too long.
func unstartable(p *podplan.Plan, req annotation.Request) (found strict.Faults) {
	deny := func(path *field.Path, value string, argument string) {
		found.Add(func() *field.Error {
			return field.Invalid(path, value, fmt.Sprintf(
				"it makes an argument of %d bytes, with which Linux starts no program; accepted: what makes one of less than %d",
				len(argument), interception.MaxArgument))
		})
	}
	if settings := "--envoy=" + p.Options.Envoy; len(settings) >= interception.MaxArgument {
		if req.Source.Has(annotation.HTTPPortsKey) {
			deny(req.Source.Path(annotation.HTTPPortsKey), req.Source.Text(annotation.HTTPPortsKey), settings)
		} else {
			deny(podplan.SpecPath.Child("containers"), "the ports they declare for HTTP", settings)
		}
	}
	if len(req.ComponentLogLevel) >= interception.MaxArgument {
		deny(req.Source.Path(annotation.ComponentLogLevelKey), req.ComponentLogLevel, req.ComponentLogLevel)
	}
	return found
}
