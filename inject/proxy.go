package inject

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
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
	if req.own != nil {
		c = req.own.mustOver(c)
	}
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
func (in *Injector) checkProxy(pod *corev1.Pod, req request, cfg Config) field.ErrorList {
	overlapping, _ := req.overlapping(cfg)
	errs := slices.Concat(checkImageAllowed(req, cfg), checkUserVolumes(pod, req, cfg), overlapping)
	if unknown := checkTemplateNames(req, cfg); len(unknown) > 0 {
		return append(errs, unknown...)
	}
	if req.resources == (quantities{}) && len(req.templates) == 0 {
		return errs
	}
	configured := in.configuredResources(req, cfg)
	if wrong := checkResources(field.NewPath("resources"), configured); len(wrong) > 0 {
		return append(errs, req.from.invalid(TemplatesKey, "together they are contradictory: "+wrong[0].Error()))
	}
	return append(errs, req.resources.check(req.from, configured)...)
}

// configuredResources are the sidecar's without the pod's word.
func (in *Injector) configuredResources(req request, cfg Config) corev1.ResourceRequirements {
	resources := cfg.ProxyResources
	if cfg.Sidecar.Type == SidecarCustom {
		resources = in.merged(req.mode).Resources
	}
	return req.mustTemplated(corev1.Container{Name: ProxyContainerName, Resources: resources}, cfg).Resources
}
