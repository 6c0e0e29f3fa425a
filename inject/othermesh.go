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

// mesh is another mesh that intercepts a pod's traffic.
type mesh struct {
	name string
	// ports are those that both its proxy and Shunt's Envoy listen on.
	ports string
}

const istioProxy = "istio-proxy"

// autoImage is Istio's placeholder for its injector's image.
const autoImage = "auto"

// meshContainers are containers that intercept, in either list of a pod.
// Sidecars that do not, such as Dapr's, are not among them.
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

// consulPrefixes begin the names of Consul's containers in a pod with several
// services.
var consulPrefixes = []string{"consul-connect-inject-init-", "consul-dataplane-"}

// meshOf returns the mesh that a container belongs to.
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

// overridesIstio reports whether a container only overrides Istio's proxy:
// Istio's injector merges it with the proxy.
func overridesIstio(c *corev1.Container) bool {
	return c.Name == istioProxy && (c.Image == autoImage || c.Image == "")
}

// otherMesh finds another mesh's containers. If two intercept in one pod, only
// one gets the connections, or each gets those of the other's proxy. In mode
// NONE Shunt does not intercept, and the other may.
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

// meshWarnings warns of containers that only Istio's injector understands, and in
// mode NONE of another mesh's proxy with the same ports.
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
