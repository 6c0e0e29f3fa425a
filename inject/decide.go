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

// Decision says whether a pod is to be injected, and why.
type Decision struct {
	Inject bool
	Reason Reason
	// Errors holds the first fields for which the pod is refused; empty unless
	// Reason.Refuses. More is how many there are besides.
	Errors field.ErrorList
	More   int
}

// Denied reports whether the pod must not run as it is.
func (d Decision) Denied() bool { return len(d.Errors) > 0 }

// Inject decides about a pod, and plans and carries out the injection where it
// is wanted. The pod is not changed. The first line that applies counts:
//
//	mirrors a static pod                             -> MirrorPod
//	sidecar.istio.io/inject malformed                -> InvalidAnnotation, refused
//	sets what forbiddenAnnotations keeps from pods,
//	  and would be wanted without it                 -> ForbiddenAnnotation, refused
//	hostNetwork                                      -> HostNetwork
//	os.name windows, or a nodeSelector that says so  -> Windows
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
//	  containers                                     -> OtherMesh, refused
//	wanted, an annotation malformed                  -> InvalidAnnotation, refused
//	wanted, one of our names in use                  -> NameTaken, refused
//	wanted, a container with the proxy's ids         -> ProxyIdentityTaken, refused
//	wanted, a container with a port of the proxy's   -> PortTaken, refused
//	wanted, the namespace enforces a level of Pod
//	  Security that forbids what the mode needs      -> PodSecurity, refused
//	wanted, has exactly what would be put in         -> AlreadyInjected
//	wanted                                           -> Injected
//
// As in Istio, a namespace that declines wins over a pod that asks, and what
// it says of the revision over what the pod says; what the pod itself says of
// inject wins over neverInjectSelector, that over alwaysInjectSelector, and
// that over the default policy. Whether a
// pod is injected already is asked last and of the containers themselves: a
// status annotation on a pod without the containers, or with others, must not
// get it past the injector; what is missing or differs is put in anew.
func (in *Injector) Inject(pod *corev1.Pod, ns annotation.Namespace) Result {
	// Kubelet runs what its node's file says, and never a pod with this annotation,
	// whoever has made it.
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
	plan, refusal := in.plan(base, ns, req, problems, cfg)
	annotation.AddKeyWarnings(&w, pod, ns)
	w.Add(meshWarnings(base, req, cfg)...)
	if refusal.Denied() {
		return Result{Decision: refusal, Warnings: w.Lines()}
	}
	w.Add(podWarnings(req, cfg)...)
	w.Add(probeWarnings(base, req)...)
	w.Add(annotation.ConfigWarnings(req, cfg)...)
	w.Add(readinessWarnings(req, plan)...)
	w.Add(orderWarnings(base, plan.Containers.Proxy(), cfg)...)
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

// AndMore words how many faults there are beside Errors; it returns nothing
// where these are all.
func (d Decision) AndMore() string { return strict.AndMore(d.More) }

func deny(reason Reason, found strict.Faults) Decision {
	return Decision{Reason: reason, Errors: found.Told, More: found.More}
}

// unwanted returns why the pod is to be left alone, or nothing.
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

// unasked returns why a pod that nobody declines is not for this injector, or
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

// Asks reports whether the namespace asks for this injector in all its pods.
func (in *Injector) Asks(ns annotation.Namespace) bool {
	switch said, present := ns.Labels[annotation.NamespaceInjectionKey]; {
	case said == annotation.NamespaceEnabled:
		return in.cfg.Revision == config.DefaultRevision
	case present:
		return false
	default:
		return ns.Labels[annotation.RevisionKey] == in.cfg.Revision
	}
}

// forWindows knows manifests too that are older than the field os.
func forWindows(pod *corev1.Pod) bool {
	if pod.Spec.OS != nil {
		return pod.Spec.OS.Name == corev1.Windows
	}
	return pod.Spec.NodeSelector[corev1.LabelOSStable] == string(corev1.Windows)
}

// podFaults leaves out what is wrong with the namespace: a pod cannot help it.
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
