package inject

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/strict"
)

// mesh is another one that intercepts a pod's traffic.
type mesh struct {
	name string
	// ports are those that its proxy listens on, and Shunt's Envoy too.
	ports string
}

const istioProxy = "istio-proxy"

// autoImage is Istio's word for the image that its injector has.
const autoImage = "auto"

// meshContainers are the containers by which others intercept, in either list
// of a pod. Sidecars that do not intercept, as Dapr's, are not among them.
var meshContainers = func() map[string]mesh {
	istio, kuma := mesh{"Istio", "15001 and 15006"}, mesh{"Kuma", "15001 and 15006"}
	linkerd, consul := mesh{"Linkerd", ""}, mesh{"Consul", "15001"}
	return map[string]mesh{
		"istio-init": istio, "istio-validation": istio, istioProxy: istio,
		"linkerd-init": linkerd, "linkerd-network-validator": linkerd, "linkerd-proxy": linkerd,
		"kuma-init": kuma, "kuma-validation": kuma, "kuma-sidecar": kuma,
		"consul-connect-inject-init": consul, "consul-dataplane": consul,
	}
}()

// consulPrefixes begin the names that Consul has for a pod of several services.
var consulPrefixes = []string{"consul-connect-inject-init-", "consul-dataplane-"}

// meshOf is the mesh that a container is of.
func meshOf(c *corev1.Container) (mesh, bool) {
	name := c.Name
	for _, prefix := range consulPrefixes {
		if strings.HasPrefix(name, prefix) {
			name = strings.TrimSuffix(prefix, "-")
		}
	}
	found, is := meshContainers[name]
	return found, is && !overridesIstio(c)
}

// overridesIstio reports whether a container is what a pod says of Istio's
// proxy, and not that proxy: Istio's injector puts the one over the other.
func overridesIstio(c *corev1.Container) bool {
	return c.Name == istioProxy && (c.Image == autoImage || c.Image == "")
}

// otherMesh finds another mesh's interception. Of two in a pod, one has the
// connections and the other has not, or each has what the other's proxy opens.
// Where Shunt intercepts nothing, there is one.
func otherMesh(pod *corev1.Pod, req annotation.Request) (found strict.Faults) {
	if req.Mode == interception.ModeNone {
		return strict.Faults{}
	}
	for _, c := range podplan.AllContainers(pod) {
		if of, is := meshOf(c.Container); is {
			found.Add(func() *field.Error {
				return field.Invalid(c.Path().Child("name"), strict.Shorten(c.Name), fmt.Sprintf(
					"%s intercepts the pod's traffic with it, and only one can; accepted: a pod without it, or with %s: NONE",
					of.name, annotation.InterceptionModeKey))
			})
		}
	}
	return found
}

// meshWarnings tells of what is Istio's to read, and of another mesh's proxy
// beside Shunt's where nothing is intercepted.
func meshWarnings(pod *corev1.Pod, req annotation.Request, cfg config.Config) []string {
	beside := req.Mode == interception.ModeNone && cfg.Sidecar.Type != config.SidecarCustom
	var warnings []string
	podplan.EachContainer(pod, func(c podplan.Placed) bool {
		name := func() *field.Path { return c.Path().Child("name") }
		if overridesIstio(c.Container) {
			warnings = append(warnings, fmt.Sprintf("%s: %s: with the image %s it is what Istio's injector merges with its proxy, "+
				"and for Shunt a container like any other; use annotations such as %s, or a template of the configuration (%s)",
				name(), c.Name, autoImage, annotation.ProxyCPUKey, annotation.TemplatesKey))
		}
		if of, is := meshOf(c.Container); is && beside && of.ports != "" {
			warnings = append(warnings, fmt.Sprintf("%s: %s: the proxy of %s listens on %s, and so does Shunt's Envoy: "+
				"one of them will not start", name(), strict.Shorten(c.Name), of.name, of.ports))
		}
		return len(warnings) <= strict.MostTold
	})
	return warnings
}
