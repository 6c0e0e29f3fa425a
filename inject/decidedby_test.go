package inject_test

import (
	"maps"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/cases"
)

// asks are the answers of DecidedBy for a pod that is wanted.
const asks = `^(namespace label istio-injection=enabled|(namespace|pod) label istio\.io/rev=\S+|` +
	`pod (label|annotation) sidecar\.istio\.io/inject=true|defaultPolicy: enabled .*|alwaysInjectSelector\[\d+\] .*)$`

var deciders = map[inject.Reason]string{
	inject.ReasonInjected: asks, inject.ReasonAlreadyInjected: asks, inject.ReasonOtherMesh: asks, inject.ReasonNameTaken: asks,
	inject.ReasonProxyIdentityTaken: asks, inject.ReasonPortTaken: asks, inject.ReasonPodSecurity: asks,
	inject.ReasonInvalidAnnotation:   asks + `|^metadata\.(labels|annotations)\[`,
	inject.ReasonForbiddenAnnotation: asks + `|inject=false$`,
	inject.ReasonMirrorPod:           `^pod annotation kubernetes\.io/config\.mirror$`,
	inject.ReasonHostNetwork:         `^spec\.hostNetwork: true$`,
	inject.ReasonWindows:             `windows$`,
	inject.ReasonPodOptedOut:         `^pod (label|annotation) sidecar\.istio\.io/inject=false$`,
	inject.ReasonNamespaceOptedOut:   `^namespace label istio-injection=disabled$`,
	inject.ReasonNeverSelected:       `^neverInjectSelector\[\d+\] of the configuration$`,
	inject.ReasonOtherRevision: `^(namespace|pod) label istio\.io/rev=\S*$|^namespace label istio-injection=enabled$|` +
		`^pod (label|annotation) sidecar\.istio\.io/inject=true$`,
	inject.ReasonNotOptedIn: `^defaultPolicy: disabled of the configuration$`,
}

// TestDecidedBy: in every case, what decides is of the kind that the reason says;
// and without the label or annotation that it names, something else decides.
func TestDecidedBy(t *testing.T) {
	removed := 0
	for _, c := range loadCases(t) {
		in := inject.NewInjector(c.Config)
		by, reason := in.DecidedBy(c.Pod, c.Namespace), in.Inject(c.Pod, c.Namespace).Reason
		if !regexp.MustCompile(deciders[reason]).MatchString(by) {
			t.Errorf("%s: %s, decided by %q", c.Name, reason, by)
		}
		if !strings.Contains(by, "=") {
			continue
		}
		removed++
		pod, ns := without(c, by)
		if again := in.DecidedBy(pod, ns); again == by {
			t.Errorf("%s: still decided by %q, which was removed", c.Name, again)
		}
	}
	if removed < 100 {
		t.Errorf("only %d cases are decided by a label or annotation", removed)
	}
}

// without returns a case's pod and namespace without the key that decides, which
// is all of "place key=value".
func without(c cases.Case, by string) (*corev1.Pod, annotation.Namespace) {
	pod, ns := c.Pod.DeepCopy(), c.Namespace
	ns.Labels = maps.Clone(ns.Labels)
	place, key := by[:strings.LastIndex(by, " ")], by[strings.LastIndex(by, " ")+1:strings.Index(by, "=")]
	switch annotation.Place(place) {
	case annotation.PodLabel:
		delete(pod.Labels, key)
	case annotation.PodAnnotation:
		delete(pod.Annotations, key)
	default:
		delete(ns.Labels, key)
	}
	return pod, ns
}
