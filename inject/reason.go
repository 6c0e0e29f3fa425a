package inject

import (
	"slices"

	"github.com/shunt-dev/shunt/inject/annotation"
)

// Reason is why a pod was injected, skipped or denied: one word, for metrics,
// events and log lines.
type Reason string

// The values of Reason.
const (
	ReasonInjected Reason = "Injected"

	ReasonMirrorPod         Reason = "MirrorPod"
	ReasonHostNetwork       Reason = "HostNetwork"
	ReasonWindows           Reason = "Windows"
	ReasonPodOptedOut       Reason = "PodOptedOut"
	ReasonNamespaceOptedOut Reason = "NamespaceOptedOut"
	ReasonNeverSelected     Reason = "NeverSelected"
	ReasonOtherRevision     Reason = "OtherRevision"
	ReasonNotOptedIn        Reason = "NotOptedIn"
	ReasonAlreadyInjected   Reason = "AlreadyInjected"

	ReasonInvalidAnnotation   Reason = "InvalidAnnotation"
	ReasonForbiddenAnnotation Reason = "ForbiddenAnnotation"
	ReasonOtherMesh           Reason = "OtherMesh"
	ReasonNameTaken           Reason = "NameTaken"
	ReasonProxyIdentityTaken  Reason = "ProxyIdentityTaken"
	ReasonPortTaken           Reason = "PortTaken"
	ReasonPodSecurity         Reason = "PodSecurity"
)

// reasons has a sentence for each Reason, in the order of the truth table.
var reasons = []struct {
	reason   Reason
	sentence string
}{
	{ReasonInjected, "the proxy was injected"},
	{ReasonMirrorPod, "the pod mirrors a static pod, and kubelet runs the node's file"},
	{ReasonInvalidAnnotation, "an annotation or label has a wrong value"},
	{ReasonForbiddenAnnotation, "the pod sets a label or annotation that the injector's configuration forbids"},
	{ReasonHostNetwork, "the pod uses its node's network, and would intercept the node's traffic"},
	{ReasonWindows, "the pod is for Windows, which has no netfilter"},
	{ReasonPodOptedOut, "the pod has " + annotation.InjectKey + ": false"},
	{ReasonNamespaceOptedOut, "the namespace has " + annotation.NamespaceInjectionKey + ": " + annotation.NamespaceDisabled},
	{ReasonNeverSelected, "a neverInjectSelector of the configuration matches the pod"},
	{ReasonOtherRevision, "the pod or its namespace asks for another revision"},
	{ReasonNotOptedIn, "neither the pod nor its namespace opted in, and the default is off"},
	{ReasonOtherMesh, "the pod has containers of another mesh, which intercepts its traffic"},
	{ReasonNameTaken, "the pod uses a name or path of Shunt's for a container, volume or mount"},
	{ReasonProxyIdentityTaken, "a container runs as the proxy's user or group and would bypass the proxy"},
	{ReasonPortTaken, "a container declares a port that the proxy listens on"},
	{ReasonPodSecurity, "the namespace enforces a Pod Security level that forbids what the interception mode needs"},
	{ReasonAlreadyInjected, "the pod has the proxy, up to date"},
}

// Reasons returns all values of Reason.
func Reasons() []Reason {
	all := make([]Reason, len(reasons))
	for i, r := range reasons {
		all[i] = r.reason
	}
	return all
}

// Sentence returns the reason as a sentence without a full stop.
func (r Reason) Sentence() string {
	for _, known := range reasons {
		if known.reason == r {
			return known.sentence
		}
	}
	return string(r)
}

// Denies reports whether a pod with this reason is denied.
func (r Reason) Denies() bool {
	return slices.Contains([]Reason{
		ReasonInvalidAnnotation, ReasonForbiddenAnnotation, ReasonOtherMesh, ReasonNameTaken,
		ReasonProxyIdentityTaken, ReasonPortTaken, ReasonPodSecurity,
	}, r)
}
