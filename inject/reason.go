package inject

import (
	"slices"

	"github.com/shunt-dev/shunt/inject/annotation"
)

// Reason says why a pod was injected, left alone or refused. It is one word,
// fit for a metric's label, an event's reason and a log line alike.
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

// reasons says each Reason in a sentence, in the order of the truth table.
var reasons = []struct {
	reason   Reason
	sentence string
}{
	{ReasonInjected, "the proxy was put in"},
	{ReasonMirrorPod, "the pod mirrors one of a node's files, which runs as the file has it"},
	{ReasonInvalidAnnotation, "an annotation or label has a value that is not accepted"},
	{ReasonForbiddenAnnotation, "the pod sets a label or annotation that the injector's configuration keeps from pods"},
	{ReasonHostNetwork, "the pod uses the network of its node, whose traffic is not the pod's to intercept"},
	{ReasonWindows, "the pod is for Windows, which has no netfilter"},
	{ReasonPodOptedOut, "the pod says " + annotation.InjectKey + ": false"},
	{ReasonNamespaceOptedOut, "the namespace says " + annotation.NamespaceInjectionKey + ": " + annotation.NamespaceDisabled},
	{ReasonNeverSelected, "the pod's labels match a neverInjectSelector of the configuration"},
	{ReasonOtherRevision, "the pod or its namespace asks for the injector of another revision"},
	{ReasonNotOptedIn, "neither the pod nor its namespace asks for injection, and it is off by default"},
	{ReasonOtherMesh, "the pod has containers of another mesh, which intercepts its traffic"},
	{ReasonNameTaken, "the pod has a container, volume or mount with a name or path that is Shunt's own"},
	{ReasonProxyIdentityTaken, "a container runs as the proxy's user or group, and its traffic would bypass the proxy"},
	{ReasonPortTaken, "a container declares a port that the proxy listens on"},
	{ReasonPodSecurity, "the namespace enforces a Pod Security level that forbids what the interception mode needs"},
	{ReasonAlreadyInjected, "the pod has the proxy already, just as it would be put in now"},
}

// Reasons returns all values of Reason.
func Reasons() []Reason {
	all := make([]Reason, len(reasons))
	for i, r := range reasons {
		all[i] = r.reason
	}
	return all
}

// Sentence says the reason in words, without a full stop.
func (r Reason) Sentence() string {
	for _, known := range reasons {
		if known.reason == r {
			return known.sentence
		}
	}
	return string(r)
}

// Denies reports whether a pod with this reason must not run at all.
func (r Reason) Denies() bool {
	return slices.Contains([]Reason{
		ReasonInvalidAnnotation, ReasonForbiddenAnnotation, ReasonOtherMesh, ReasonNameTaken,
		ReasonProxyIdentityTaken, ReasonPortTaken, ReasonPodSecurity,
	}, r)
}
