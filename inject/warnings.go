package inject

import (
	"cmp"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// imageUserWarnings warns of containers that set runAsNonRoot without runAsUser:
// their image's user may be the proxy's, as in images made for Istio. Another
// proxyUID is one that images do not use, and most images without either field
// run as root: there is no warning for these.
func imageUserWarnings(pod *corev1.Pod, req annotation.Request, cfg config.Config) []string {
	allowed := req.Mode == interception.ModeNone || ptr.Deref(req.AllowProxyIdentity, false)
	if allowed || cfg.ProxyUID != int64(interception.DefaultProxyUID) {
		return nil
	}
	ofPod := pod.Spec.SecurityContext
	if ofPod == nil {
		ofPod = &corev1.PodSecurityContext{}
	}
	var none corev1.SecurityContext
	var names []string
	podplan.EachContainer(pod, func(c podplan.Placed) bool {
		context := c.SecurityContext
		if context == nil {
			context = &none
		}
		unknown := context.RunAsUser == nil && ofPod.RunAsUser == nil
		if unknown && ptr.Deref(cmp.Or(context.RunAsNonRoot, ofPod.RunAsNonRoot), false) {
			names = append(names, c.Name)
		}
		return true
	})
	if len(names) == 0 {
		return nil
	}
	const told = 5
	more := ""
	if len(names) > told {
		more, names = fmt.Sprintf(" and %d more", len(names)-told), names[:told]
	}
	return []string{fmt.Sprintf("%s%s: runAsNonRoot without runAsUser: the image sets the user, and if that is %d, the proxy's, "+
		"the connections bypass the proxy", strings.Join(names, ", "), more, cfg.ProxyUID)}
}

// NamespaceWarnings warns of wrong labels of a namespace.
func NamespaceWarnings(ns annotation.Namespace) []string {
	_, problems := annotation.Read(&corev1.Pod{}, ns)
	return namespaceWarnings(problems)
}

// namespaceWarnings warns of wrong labels of the namespace, which deny no pod.
func namespaceWarnings(problems []annotation.Problem) []string {
	var warnings []string
	for _, p := range problems {
		if p.Place != annotation.NamespaceLabel {
			continue
		}
		effect := "it counts as absent"
		if p.Key == annotation.RevisionKey {
			effect = "no injector has this revision"
		}
		warnings = append(warnings, fmt.Sprintf("the namespace's %v; %s", p.Err, effect))
	}
	return warnings
}

// podWarnings warns of settings that are valid but have no effect.
func podWarnings(req annotation.Request, cfg config.Config) []string {
	switch {
	case cfg.Sidecar.Type == config.SidecarCustom:
		return unusedKeyWarnings(req)
	case req.ProxyConfig.Drain > 0 && !req.Source.FromNamespace(annotation.ProxyConfigKey) && !cfg.Drains():
		return []string{fmt.Sprintf("%s: Envoy proxies TCP and stops after the application, so there is nothing to drain; "+
			"it drains with %s: declared or all", req.Source.Path(annotation.ProxyConfigKey), annotation.ProtocolDetectionKey)}
	}
	return nil
}

// unusedKeyWarnings warns of annotations for Envoy where the sidecar is another proxy.
func unusedKeyWarnings(req annotation.Request) []string {
	var warnings []string
	for _, row := range annotation.Table() {
		if row.Envoy && req.Source.Has(row.Key) {
			warnings = append(warnings, fmt.Sprintf("%s: it is for Envoy, and this injector's sidecar is another proxy",
				req.Source.Path(row.Key)))
		}
	}
	return warnings
}

// regularSidecarWarnings warns of what a pod lacks where the proxy is a regular
// sidecar container.
func regularSidecarWarnings(pod *corev1.Pod, proxy corev1.Container, cfg config.Config) []string {
	if cfg.Native() {
		return nil
	}
	var warnings []string
	if policy := pod.Spec.RestartPolicy; policy == corev1.RestartPolicyNever || policy == corev1.RestartPolicyOnFailure {
		warnings = append(warnings, fmt.Sprintf("%s: %s: the pod will not complete, because the proxy is a regular container "+
			"and runs on after the others end", podplan.SpecPath.Child("restartPolicy"), policy))
	}
	held := proxy.Lifecycle != nil && proxy.Lifecycle.PostStart != nil
	if cfg.HoldApplicationUntilProxyStarts && !held {
		warnings = append(warnings, "the application does not wait for the proxy: the proxy is a regular container, and its startup probe "+
			"is neither httpGet over HTTP nor tcpSocket")
	}
	return warnings
}

// probeWarnings warns of probes that the pod keeps and that the proxy answers.
func probeWarnings(pod *corev1.Pod, req annotation.Request) []string {
	if req.Mode == interception.ModeNone || ptr.Deref(req.RewriteProbes, true) {
		return nil
	}
	var warnings []string
	for _, p := range podplan.NewProbes(pod, req.Spec) {
		warnings = append(warnings, fmt.Sprintf("the %s of container %q succeeds as long as the proxy listens on its port, because of %s",
			p.Kind, p.Container, annotation.RewriteProbesKey))
	}
	return warnings
}

// readinessWarnings warns of settings for a readiness probe that the proxy lacks.
func readinessWarnings(req annotation.Request, plan *podplan.Plan) []string {
	if req.Readiness == (annotation.Readiness{}) || plan.Containers.Proxy().ReadinessProbe != nil {
		return nil
	}
	var warnings []string
	for _, key := range []string{annotation.ReadinessInitialDelayKey, annotation.ReadinessPeriodKey, annotation.ReadinessFailuresKey} {
		if req.Source.Has(key) {
			warnings = append(warnings, fmt.Sprintf("%s: the proxy has no readiness probe", req.Source.Path(key)))
		}
	}
	return warnings
}
