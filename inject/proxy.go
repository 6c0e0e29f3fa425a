package inject

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/strict"
)

// proxy is the sidecar as a pod gets it: that of the configuration, and over
// it what the pod asks for.
func (in *Injector) proxy(req request, cfg Config) corev1.Container {
	c := req.probed(in.configured(req, cfg))
	if req.bootstrapOverride != "" && cfg.Sidecar.Type != SidecarCustom {
		c = override(c, req.bootstrapOverride)
	}
	if len(req.userMounts) > 0 {
		c.VolumeMounts = slices.Concat(c.VolumeMounts, req.userMounts)
	}
	replace(&c.Image, req.image)
	c.Resources = req.resources.over(c.Resources)
	return c
}

// configured is the sidecar that the configuration makes.
func (in *Injector) configured(req request, cfg Config) corev1.Container {
	if cfg.Sidecar.Type == SidecarCustom {
		return custom(req.mustTemplated(in.merged(req.mode), cfg), req.mode, cfg)
	}
	return req.mustTemplated(envoyContainer(req.mode, cfg), cfg)
}

// checkProxy finds what a pod asks of its proxy and the configuration does not
// let it have.
func (in *Injector) checkProxy(pod *corev1.Pod, req request, cfg Config) (found strict.Faults) {
	found.AddAll(checkImageAllowed(req, cfg))
	found.Merge(checkUserVolumes(pod, req, cfg))
	found.AddAll(req.overlapping(cfg))
	if unknown := checkTemplateNames(req, cfg); len(unknown.Told) > 0 {
		found.Merge(unknown)
		return found
	}
	if req.resources == (quantities{}) && len(req.templates) == 0 {
		return found
	}
	configured := in.configuredResources(req, cfg)
	if wrong := checkResources(field.NewPath("resources"), configured); len(wrong) > 0 {
		found.Add(func() *field.Error {
			return req.from.invalid(TemplatesKey, "together they are contradictory: "+wrong[0].Error())
		})
		return found
	}
	found.AddAll(req.resources.check(req.from))
	return found
}

// configuredResources are the sidecar's without the pod's word.
func (in *Injector) configuredResources(req request, cfg Config) corev1.ResourceRequirements {
	resources := cfg.ProxyResources
	if cfg.Sidecar.Type == SidecarCustom {
		resources = in.merged(req.mode).Resources
	}
	return req.mustTemplated(corev1.Container{Name: podplan.ProxyContainerName, Resources: resources}, cfg).Resources
}
