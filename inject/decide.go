package inject

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/sidecar"
	"github.com/shunt-dev/shunt/inject/strict"
)

// Decision is whether a pod is injected, and why.
type Decision struct {
	Inject bool
	Reason Reason
	// Errors has the first fields for which the pod is denied; empty unless
	// Reason.Denies. More is the number of further ones.
	Errors field.ErrorList
	More   int
}

// Denied reports whether the pod is denied.
func (d Decision) Denied() bool { return len(d.Errors) > 0 }

// Inject decides about a pod, and injects it if it is wanted. The pod is not
// changed. The first line that applies counts:
//
//	mirrors a static pod                             -> MirrorPod
//	sidecar.istio.io/inject malformed                -> InvalidAnnotation, denied
//	sets what forbiddenAnnotations lists,
//	  and would be wanted without it                 -> ForbiddenAnnotation, denied
//	hostNetwork                                      -> HostNetwork
//	os.name windows, or a nodeSelector for it        -> Windows
//	namespace        namespace     pod     pod           selectors  default
//	istio-injection  istio.io/rev  inject  istio.io/rev  that match policy
//	any              any           false   any           any        any       -> PodOptedOut
//	disabled         any           any     any           any        any       -> NamespaceOptedOut
//	any              any           absent  any           never      any       -> NeverSelected
//	enabled          any           any     any           any        any       -> asks for "default"
//	absent           x             any     any           any        any       -> asks for x
//	absent           absent        any     x             any        any       -> asks for x
//	absent           absent        any     absent        any        enabled   -> wanted
//	absent           absent        true    absent        any        disabled  -> asks for "default"
//	absent           absent        absent  absent        always     disabled  -> wanted
//	absent           absent        absent  absent        none       disabled  -> NotOptedIn
//
//	asks for another revision than the configuration's -> OtherRevision
//	asks for the configuration's revision              -> wanted
//
//	wanted, not in mode NONE, another mesh's
//	  containers                                     -> OtherMesh, denied
//	wanted, an annotation malformed                  -> InvalidAnnotation, denied
//	wanted, one of our names in use                  -> NameTaken, denied
//	wanted, a container with the proxy's ids         -> ProxyIdentityTaken, denied
//	wanted, a container with a port of the proxy's   -> PortTaken, denied
//	wanted, the namespace enforces a level of Pod
//	  Security that forbids what the mode needs      -> PodSecurity, denied
//	wanted, has exactly what would be put in         -> AlreadyInjected
//	wanted                                           -> Injected
//
// As in Istio, a namespace that opts out wins over a pod that opts in, and the
// namespace's revision over the pod's. The pod's own inject wins over
// neverInjectSelector, that over alwaysInjectSelector, and that over the default
// policy. Whether a pod is already injected is checked last, and on its
// containers: a status annotation alone must not get a pod past the injector.
// What is missing or differs is injected again.
func (in *Injector) Inject(pod *corev1.Pod, ns annotation.Namespace) Result {
	// Kubelet runs the node's file, and never a pod with this annotation, whoever
	// created it.
	if _, mirrors := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirrors {
		return Result{Decision: Decision{Reason: ReasonMirrorPod}}
	}
	req, problems := annotation.Read(pod, ns)
	var w strict.Warnings
	w.Add(namespaceWarnings(problems)...)
	for _, p := range problems {
		if p.Key == annotation.InjectKey {
			return Result{Decision: deny(ReasonInvalidAnnotation, podFaults(problems)), Warnings: w.Lines()}
		}
	}
	if errs := in.forbidden(pod, ns); len(errs) > 0 {
		var found strict.Faults
		found.AddAll(errs)
		return Result{Decision: deny(ReasonForbiddenAnnotation, found), Warnings: w.Lines()}
	}
	if reason := in.unwanted(pod, req); reason != "" {
		return Result{Decision: Decision{Reason: reason}, Warnings: w.Lines()}
	}
	edit, _ := podplan.Undo(pod, podplan.VolumeNames(sidecar.Volumes(req, in.cfg)))
	base := edit.Pod()
	cfg := req.Override(in.cfg, base)
	plan, denial := in.plan(base, ns, req, problems, cfg)
	annotation.AddKeyWarnings(&w, pod, ns)
	w.Add(meshWarnings(base, req, cfg)...)
	if denial.Denied() {
		return Result{Decision: denial, Warnings: w.Lines()}
	}
	w.Add(podWarnings(req, cfg)...)
	w.Add(probeWarnings(base, req)...)
	w.Add(annotation.ConfigWarnings(req, cfg)...)
	w.Add(readinessWarnings(req, plan)...)
	w.Add(regularSidecarWarnings(base, plan.Containers.Proxy(), cfg)...)
	w.Add(imageUserWarnings(base, req, cfg)...)
	w.Add(sidecar.QoSWarnings(base, req, plan, cfg)...)
	applied, changed := plan.AppliedTo(pod)
	if applied {
		return Result{Decision: Decision{Reason: ReasonAlreadyInjected}, Plan: plan, Warnings: w.Lines()}
	}
	if changed != "" {
		w.Add(changed)
	}
	plan.Apply(edit)
	return Result{
		Decision: Decision{Inject: true, Reason: ReasonInjected}, Plan: plan,
		Pod: edit.Pod(), Operations: edit.Operations(), Warnings: w.Lines(),
	}
}

// AndMore returns a text with the number of faults beside Errors, or nothing if
// there are none.
func (d Decision) AndMore() string { return strict.AndMore(d.More) }

// Messages returns the texts of Errors, and AndMore unless it is empty.
func (d Decision) Messages() []string {
	var all []string
	for _, err := range d.Errors {
		all = append(all, err.Error())
	}
	if more := d.AndMore(); more != "" {
		all = append(all, more)
	}
	return all
}

func deny(reason Reason, found strict.Faults) Decision {
	return Decision{Reason: reason, Errors: found.Told, More: found.More}
}

// Wants reports whether the injector would put the proxy into a pod or deny it,
// rather than skip it.
func (in *Injector) Wants(pod *corev1.Pod, ns annotation.Namespace) bool {
	req, _ := annotation.Read(pod, ns)
	return in.unwanted(pod, req) == ""
}

// unwanted returns why the pod is skipped, or nothing.
func (in *Injector) unwanted(pod *corev1.Pod, req annotation.Request) Reason {
	switch {
	case pod.Spec.HostNetwork:
		return ReasonHostNetwork
	case forWindows(pod):
		return ReasonWindows
	case !ptr.Deref(req.PodInject, true):
		return ReasonPodOptedOut
	case !ptr.Deref(req.NamespaceInject, true):
		return ReasonNamespaceOptedOut
	case req.PodInject == nil && in.never.Match(pod):
		return ReasonNeverSelected
	default:
		return in.unasked(pod, req)
	}
}

// unasked returns why a pod that did not opt out is not for this injector, or
// nothing.
func (in *Injector) unasked(pod *corev1.Pod, req annotation.Request) Reason {
	byPolicy := in.cfg.DefaultPolicy == config.PolicyEnabled
	asked := req.Revision
	if ptr.Deref(req.NamespaceInject, false) || asked == "" && ptr.Deref(req.PodInject, false) && !byPolicy {
		asked = config.DefaultRevision
	}
	switch {
	case asked == in.cfg.Revision, asked == "" && (byPolicy || in.always.Match(pod)):
		return ""
	case asked == "":
		return ReasonNotOptedIn
	default:
		return ReasonOtherRevision
	}
}

// Asks reports whether the namespace asks for this injector for all its pods.
func (in *Injector) Asks(ns annotation.Namespace) bool {
	switch value, present := ns.Labels[annotation.NamespaceInjectionKey]; {
	case value == annotation.NamespaceEnabled:
		return in.cfg.Revision == config.DefaultRevision
	case present:
		return false
	default:
		return ns.Labels[annotation.RevisionKey] == in.cfg.Revision
	}
}

// forWindows reports whether a pod is for Windows. Manifests older than the
// field os have a nodeSelector.
func forWindows(pod *corev1.Pod) bool {
	if pod.Spec.OS != nil {
		return pod.Spec.OS.Name == corev1.Windows
	}
	return pod.Spec.NodeSelector[corev1.LabelOSStable] == string(corev1.Windows)
}

// podFaults returns the problems of the pod, without those of its namespace,
// which the owner of the pod cannot correct.
func podFaults(problems []annotation.Problem) strict.Faults {
	var found strict.Faults
	for _, p := range problems {
		if p.Place != annotation.NamespaceLabel {
			found.Add(func() *field.Error { return p.Err })
			found.More += p.More
		}
	}
	return found
}
