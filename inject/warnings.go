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

// imageUserWarnings tells of containers that say that their image's user is not
// root, and not which it is. One made to run beside Istio's proxy may have the
// proxy's own. Whoever has chosen another uid has chosen one that images do not
// have. Of containers that say nothing nothing is said: most images are root's.
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
	return []string{fmt.Sprintf("%s%s: runAsNonRoot without runAsUser: the image says which user it is, and if that is %d, the proxy's, "+
		"the connections go past the proxy", strings.Join(names, ", "), more, cfg.ProxyUID)}
}

func namespaceWarnings(problems []annotation.Problem) []string {
	var warnings []string
	for _, p := range problems {
		if p.Place != annotation.NamespaceLabel {
			continue
		}
		counts := "it counts as absent"
		if p.Key == annotation.RevisionKey {
			counts = "no injector has this revision"
		}
		warnings = append(warnings, fmt.Sprintf("the namespace's %v; %s", p.Err, counts))
	}
	return warnings
}

// podWarnings tells of what is not wrong but hardly meant.
func podWarnings(req annotation.Request, cfg config.Config) []string {
	switch {
	case cfg.Sidecar.Type == config.SidecarCustom:
		return unusedKeyWarnings(req)
	case req.ProxyConfig.Drain > 0 && !req.Source.FromNamespace(annotation.ProxyConfigKey) && !cfg.Drains():
		return []string{fmt.Sprintf("%s: Envoy carries bytes, and is stopped after the application: there is nothing to drain; "+
			"with %s: declared or all there is", req.Source.Path(annotation.ProxyConfigKey), annotation.ProtocolDetectionKey)}
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

// orderWarnings tells of what a pod does not have in classic order.
func orderWarnings(pod *corev1.Pod, proxy corev1.Container, cfg config.Config) []string {
	if cfg.Native() {
		return nil
	}
	var warnings []string
	if policy := pod.Spec.RestartPolicy; policy == corev1.RestartPolicyNever || policy == corev1.RestartPolicyOnFailure {
		warnings = append(warnings, fmt.Sprintf("%s: %s: the pod will not complete, because the proxy is an ordinary container, "+
			"which goes on running when the others have ended", podplan.SpecPath.Child("restartPolicy"), policy))
	}
	held := proxy.Lifecycle != nil && proxy.Lifecycle.PostStart != nil
	if cfg.HoldApplicationUntilProxyStarts && !held {
		warnings = append(warnings, "the application does not wait for the proxy: that is an ordinary container, and its startup probe "+
			"is not one of an HTTP path or a tcp port")
	}
	return warnings
}

// probeWarnings tells of probes that are kept and that the proxy answers.
func probeWarnings(pod *corev1.Pod, req annotation.Request) []string {
	if req.Mode == interception.ModeNone || ptr.Deref(req.RewriteProbes, true) {
		return nil
	}
	var warnings []string
	for _, p := range podplan.NewProbes(pod, req.Spec) {
		warnings = append(warnings, fmt.Sprintf("the %s of container %q says yes as long as the proxy listens on its port, because of %s",
			p.Kind, p.Container, annotation.RewriteProbesKey))
	}
	return warnings
}

// readinessWarnings tells of settings of a probe that there is not.
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
