package inject

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/strict"
)

// DecidedBy returns the label, the annotation, the field or the rule of the
// configuration by which Inject decides whether a pod gets the proxy, such as
// "namespace label istio-injection=enabled". It goes by the same table. What
// denies a pod that is wanted is in Result.Errors.
func (in *Injector) DecidedBy(pod *corev1.Pod, ns annotation.Namespace) string {
	if _, mirrors := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirrors {
		return "pod annotation " + corev1.MirrorPodAnnotationKey
	}
	req, problems := annotation.Read(pod, ns)
	for _, p := range problems {
		if p.Key == annotation.InjectKey {
			return p.Err.Field
		}
	}
	switch {
	case pod.Spec.HostNetwork:
		return "spec.hostNetwork: true"
	case forWindows(pod):
		return "the pod's operating system, windows"
	case !ptr.Deref(req.PodInject, true):
		return keyOfPod(pod, annotation.InjectKey)
	case !ptr.Deref(req.NamespaceInject, true):
		return keyOfNamespace(ns, annotation.NamespaceInjectionKey)
	case req.PodInject == nil && in.never.Match(pod):
		return fmt.Sprintf("neverInjectSelector[%d] of the configuration", in.never.Index(pod))
	default:
		return in.askedBy(pod, ns, req)
	}
}

// askedBy is what decides about a pod that did not opt out.
func (in *Injector) askedBy(pod *corev1.Pod, ns annotation.Namespace, req annotation.Request) string {
	switch {
	case ptr.Deref(req.NamespaceInject, false):
		return keyOfNamespace(ns, annotation.NamespaceInjectionKey)
	case req.Revision != "" && ns.Labels[annotation.RevisionKey] == req.Revision:
		return keyOfNamespace(ns, annotation.RevisionKey)
	case req.Revision != "":
		return keyOfPod(pod, annotation.RevisionKey)
	case in.cfg.DefaultPolicy == config.PolicyEnabled:
		return "defaultPolicy: enabled of the configuration"
	case ptr.Deref(req.PodInject, false):
		return keyOfPod(pod, annotation.InjectKey)
	case in.always.Match(pod):
		return fmt.Sprintf("alwaysInjectSelector[%d] of the configuration", in.always.Index(pod))
	default:
		return "defaultPolicy: disabled of the configuration"
	}
}

// keyOfNamespace returns a label of the namespace, as kubectl prints it.
func keyOfNamespace(ns annotation.Namespace, key string) string {
	return string(annotation.NamespaceLabel) + " " + key + "=" + strict.Shorten(ns.Labels[key])
}

// keyOfPod returns a key of the pod with its place. The label overrides the
// annotation.
func keyOfPod(pod *corev1.Pod, key string) string {
	for _, at := range []struct {
		place  annotation.Place
		values map[string]string
	}{{annotation.PodLabel, pod.Labels}, {annotation.PodAnnotation, pod.Annotations}} {
		if value, present := at.values[key]; present {
			return string(at.place) + " " + key + "=" + strict.Shorten(value)
		}
	}
	return key
}
