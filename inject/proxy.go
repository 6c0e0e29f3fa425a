package inject

import (
	"cmp"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/strict"
)

// maker makes the proxy's container by one configuration, for many pods: what
// takes long to make and depends on no pod is made once.
type maker struct {
	// merged is the custom sidecar for each mode, less what depends on the pod.
	// It is shared, and must not be changed.
	merged map[interception.Mode]func() corev1.Container
}

// newMaker returns a maker for a configuration that Validate has passed.
func newMaker(cfg Config) *maker {
	m := &maker{merged: map[interception.Mode]func() corev1.Container{}}
	for _, mode := range modes {
		m.merged[mode] = sync.OnceValue(func() corev1.Container { return mustMerge(mode, cfg) })
	}
	return m
}

// container returns the proxy's container as a pod gets it: that of the
// configuration, overridden by what the pod asks for. The configuration is the
// one that holds for the pod.
func (m *maker) container(req request, cfg Config) corev1.Container {
	c := envoyContainer(req.mode, cfg)
	if cfg.Sidecar.Type == SidecarCustom {
		c = m.merged[req.mode]()
	}
	c = mustTemplated(req, c, cfg)
	if cfg.Sidecar.Type == SidecarCustom {
		// First, so that the variables of the template can refer to them.
		c.Env = slices.Concat(customEnv(req.mode, cfg), c.Env)
	}
	c = probed(req, c)
	if req.bootstrapOverride != "" && cfg.Sidecar.Type != SidecarCustom {
		c = override(c, req.bootstrapOverride)
	}
	if len(req.userMounts) > 0 {
		c.VolumeMounts = slices.Concat(c.VolumeMounts, req.userMounts)
	}
	c.Image = cmp.Or(req.image, c.Image)
	c.Resources = req.resources.over(c.Resources)
	return c
}

// check finds what a pod asks of its proxy and the configuration does not let
// it have.
func (m *maker) check(pod *corev1.Pod, req request, cfg Config) (found strict.Faults) {
	found.AddAll(checkImageAllowed(req, cfg))
	found.Merge(checkUserVolumes(pod, req, cfg))
	found.AddAll(overlapping(req, cfg))
	if unknown := checkTemplateNames(req, cfg); len(unknown.Told) > 0 {
		found.Merge(unknown)
		return found
	}
	if req.resources == (quantities{}) && len(req.templates) == 0 {
		return found
	}
	configured := cfg.ProxyResources
	if cfg.Sidecar.Type == SidecarCustom {
		configured = m.merged[req.mode]().Resources
	}
	configured = mustTemplated(req, corev1.Container{Name: podplan.ProxyContainerName, Resources: configured}, cfg).Resources
	if wrong := checkResources(field.NewPath("resources"), configured); len(wrong) > 0 {
		found.Add(func() *field.Error {
			return req.from.invalid(TemplatesKey, "together they are contradictory: "+wrong[0].Error())
		})
		return found
	}
	found.AddAll(req.resources.check(req.from))
	return found
}
