package sidecar

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/strict"
)

// checkTemplateNames finds templates that the configuration does not have.
func checkTemplateNames(req annotation.Request, cfg config.Config) (found strict.Faults) {
	for _, name := range req.Templates {
		if _, there := cfg.Templates[name]; !there {
			found.Add(func() *field.Error {
				accepted := slices.Concat([]string{annotation.BuiltinTemplate}, slices.Sorted(maps.Keys(cfg.Templates)))
				reason := fmt.Sprintf("the injector's configuration has no template %q", name)
				if name == annotation.GatewayTemplate {
					reason += ", and " + annotation.NoGateway
				}
				return req.Source.Invalid(annotation.TemplatesKey, reason+"; accepted: "+strings.Join(accepted, ", "))
			})
		}
	}
	return found
}

// templated returns the sidecar merged with the templates that the pod names.
func templated(req annotation.Request, c corev1.Container, cfg config.Config) (corev1.Container, error) {
	for _, name := range req.Templates {
		over := cfg.Templates[name].Container
		if over == nil {
			continue
		}
		// Envoy's arguments are long, and no template changes them.
		args := c.Args
		if over.Args == nil {
			c.Args = nil
		}
		merged, err := merge(withoutOverridden(c, *over), *over.DeepCopy())
		if err != nil {
			return corev1.Container{}, fmt.Errorf("template %s: %w", name, err)
		}
		if c = merged; over.Args == nil {
			c.Args = args
		}
	}
	return c, nil
}

// mustTemplated runs templated for a configuration that has passed Validate.
func mustTemplated(req annotation.Request, c corev1.Container, cfg config.Config) corev1.Container {
	merged, err := templated(req, c, cfg)
	if err != nil {
		panic("sidecar from a valid configuration: " + err.Error())
	}
	return merged
}

// withoutOverridden removes from a container what the other one sets in another
// way. A merge would keep both, and Kubernetes accepts only one handler of a probe
// or hook, one source of a variable, and one mount at a path.
func withoutOverridden(base, over corev1.Container) corev1.Container {
	made := base.DeepCopy()
	for _, probe := range []struct{ base, over *corev1.Probe }{
		{made.StartupProbe, over.StartupProbe}, {made.ReadinessProbe, over.ReadinessProbe}, {made.LivenessProbe, over.LivenessProbe},
	} {
		if probe.base != nil && probe.over != nil && probe.over.ProbeHandler != (corev1.ProbeHandler{}) {
			probe.base.ProbeHandler = corev1.ProbeHandler{}
		}
	}
	if made.Lifecycle != nil && over.Lifecycle != nil {
		if over.Lifecycle.PreStop != nil {
			made.Lifecycle.PreStop = nil
		}
		if over.Lifecycle.PostStart != nil {
			made.Lifecycle.PostStart = nil
		}
	}
	for i := range made.Env {
		have := &made.Env[i]
		if slices.ContainsFunc(over.Env, func(v corev1.EnvVar) bool { return v.Name == have.Name }) {
			have.Value, have.ValueFrom = "", nil
		}
	}
	made.VolumeMounts = slices.DeleteFunc(made.VolumeMounts, func(have corev1.VolumeMount) bool {
		return slices.ContainsFunc(over.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == have.MountPath })
	})
	return *made
}

// checkTemplates finds what is wrong with each template. Check looks at the
// combination in the pod that names them.
func checkTemplates(cfg config.Config) field.ErrorList {
	var errs field.ErrorList
	taken := slices.Clone(cfg.Sidecar.Volumes)
	for _, name := range slices.Sorted(maps.Keys(cfg.Templates)) {
		path, t := field.NewPath("templates").Key(name), cfg.Templates[name]
		for _, wrong := range validation.IsDNS1123Label(name) {
			errs = append(errs, field.Invalid(path, name, "accepted: "+wrong))
		}
		if name == annotation.BuiltinTemplate {
			errs = append(errs, field.Invalid(path, name, "the name is that of the sidecar itself; accepted: any other name"))
		}
		if t.Container == nil && len(t.Volumes) == 0 {
			errs = append(errs, field.Required(path, "accepted: a container, volumes or both"))
		}
		errs = append(errs, checkVolumes(path.Child("volumes"), t.Volumes)...)
		for i, v := range t.Volumes {
			if slices.Contains(podplan.VolumeNames(taken), v.Name) {
				errs = append(errs, field.Invalid(path.Child("volumes").Index(i).Child("name"), v.Name,
					"the name is that of a volume of the sidecar or another template; accepted: any other name"))
			}
		}
		taken = append(taken, t.Volumes...)
		if t.Container != nil {
			errs = append(errs, checkOverlay(path.Child("container"), cfg, t)...)
		}
	}
	return errs
}

// checkOverlay finds what a template's container must not change.
func checkOverlay(path *field.Path, cfg config.Config, t config.Template) field.ErrorList {
	c := *t.Container
	errs := checkTemplate(path, c)
	if c.Image != "" {
		errs = append(errs, config.CheckImage(path.Child("image"), c.Image)...)
	}
	if cfg.Sidecar.Type != config.SidecarCustom {
		for _, list := range []struct {
			name  string
			words []string
		}{{"command", c.Command}, {"args", c.Args}} {
			if list.words != nil {
				errs = append(errs, field.Forbidden(path.Child(list.name),
					"Envoy's command line is Shunt's; accepted: with sidecar type custom"))
			}
		}
		for i, v := range c.Env {
			if slices.Contains(envoyVariables, v.Name) {
				errs = append(errs, field.Invalid(path.Child("env").Index(i).Child("name"), v.Name,
					"Envoy's name in the cluster is made of it; accepted: any other name"))
			}
		}
	}
	errs = append(errs, checkMounts(path, c, slices.Concat(cfg.Sidecar.Volumes, t.Volumes), "sidecar.volumes or the template's volumes")...)
	return append(errs, checkMerged(path, cfg, func(mode interception.Mode) (corev1.Container, error) {
		base := baseContainer(mode, cfg)
		if cfg.Sidecar.Type == config.SidecarCustom && cfg.Sidecar.Container != nil {
			merged, err := mergeCustom(mode, cfg)
			if err != nil {
				return base, err
			}
			base = merged
		}
		return merge(withoutOverridden(base, c), *c.DeepCopy())
	})...)
}
