package sidecar

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
)

var sidecarPath = field.NewPath("sidecar")

// Validate returns everything that is wrong with the sidecar and the templates of
// a configuration.
func Validate(cfg config.Config) field.ErrorList {
	return append(checkSidecar(cfg), checkTemplates(cfg)...)
}

// checkSidecar finds what is wrong with the sidecar in any mode.
func checkSidecar(cfg config.Config) field.ErrorList {
	s := cfg.Sidecar
	containerPath, volumesPath := sidecarPath.Child("container"), sidecarPath.Child("volumes")
	switch s.Type {
	case config.SidecarEnvoy:
		var errs field.ErrorList
		const detail = "with type envoy the container is Shunt's; accepted: with type custom"
		if s.Container != nil {
			errs = append(errs, field.Forbidden(containerPath, detail))
		}
		if len(s.Volumes) > 0 {
			errs = append(errs, field.Forbidden(volumesPath, detail))
		}
		return errs
	case config.SidecarCustom:
		errs := checkVolumes(volumesPath, s.Volumes)
		if s.Container == nil {
			return append(errs, field.Required(containerPath, "accepted: a container with an image"))
		}
		errs = append(errs, config.CheckImage(containerPath.Child("image"), s.Container.Image)...)
		errs = append(errs, checkTemplate(containerPath, *s.Container)...)
		errs = append(errs, checkMounts(containerPath, *s.Container, s.Volumes, "sidecar.volumes")...)
		return append(errs, checkMerged(containerPath, cfg, func(mode interception.Mode) (corev1.Container, error) {
			return mergeCustom(mode, cfg)
		})...)
	default:
		known := []config.SidecarType{config.SidecarEnvoy, config.SidecarCustom}
		return field.ErrorList{field.NotSupported(sidecarPath.Child("type"), s.Type, known)}
	}
}

// checkTemplate finds what a template sets and must leave to Shunt.
func checkTemplate(path *field.Path, c corev1.Container) field.ErrorList {
	var errs field.ErrorList
	if c.Name != "" && c.Name != podplan.ProxyContainerName {
		errs = append(errs, field.Invalid(path.Child("name"), c.Name, "accepted: none, or "+podplan.ProxyContainerName))
	}
	if c.RestartPolicy != nil && *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
		errs = append(errs, field.Invalid(path.Child("restartPolicy"), *c.RestartPolicy,
			"the proxy runs as long as the pod; accepted: none, or Always"))
	}
	for i, v := range c.Env {
		if isCustomVariable(v) {
			errs = append(errs, field.Invalid(path.Child("env").Index(i).Child("name"), v.Name,
				"variables of this prefix are the injector's; accepted: a name that does not begin with "+customPrefix))
		}
	}
	for i, port := range c.Ports {
		if port.HostPort != 0 {
			errs = append(errs, field.Invalid(path.Child("ports").Index(i).Child("hostPort"), port.HostPort,
				"only one pod of a node could have it; accepted: none"))
		}
	}
	return errs
}

func checkVolumes(path *field.Path, volumes []corev1.Volume) field.ErrorList {
	var errs field.ErrorList
	for i, volume := range volumes {
		name := path.Index(i).Child("name")
		for _, wrong := range validation.IsDNS1123Label(volume.Name) {
			errs = append(errs, field.Invalid(name, volume.Name, "accepted: "+wrong))
		}
		if podplan.IsVolumeName(volume.Name) {
			errs = append(errs, field.Invalid(name, volume.Name, "the name is that of a volume of Shunt's; accepted: any other name"))
		}
		if slices.Contains(podplan.VolumeNames(volumes[:i]), volume.Name) {
			errs = append(errs, field.Duplicate(name, volume.Name))
		}
	}
	return errs
}

// checkMounts finds mounts of unknown volumes.
func checkMounts(path *field.Path, c corev1.Container, volumes []corev1.Volume, of string) field.ErrorList {
	names := podplan.VolumeNames(volumes)
	accepted := "accepted: the name of one of " + of
	if len(names) > 0 {
		accepted += ": " + strings.Join(names, ", ")
	}
	var errs field.ErrorList
	check := func(at *field.Path, name string) {
		if !slices.Contains(names, name) {
			errs = append(errs, field.Invalid(at.Child("name"), name, accepted))
		}
	}
	for i, mount := range c.VolumeMounts {
		check(path.Child("volumeMounts").Index(i), mount.Name)
	}
	for i, device := range c.VolumeDevices {
		check(path.Child("volumeDevices").Index(i), device.Name)
	}
	return append(errs, checkSharedPath(path, c)...)
}

// checkSharedPath finds mounts where shunt-init writes its files.
func checkSharedPath(at *field.Path, c corev1.Container) field.ErrorList {
	var errs field.ErrorList
	for i, mount := range c.VolumeMounts {
		if podplan.Within(path.Clean(mount.MountPath), envoy.SharedDirectory) {
			errs = append(errs, field.Invalid(at.Child("volumeMounts").Index(i).Child("mountPath"), mount.MountPath,
				"shunt-init leaves its files there; accepted: a path that is not "+envoy.SharedDirectory+" or below it"))
		}
	}
	return errs
}

// checkMerged finds, mode by mode, what in the merged container breaks the
// data path.
func checkMerged(path *field.Path, cfg config.Config, in func(interception.Mode) (corev1.Container, error)) field.ErrorList {
	var errs field.ErrorList
	for _, mode := range modes {
		merged, err := in(mode)
		if err != nil {
			return field.ErrorList{field.InternalError(path, err)}
		}
		for _, wrong := range slices.Concat(
			config.CheckResources(path.Child("resources"), merged.Resources),
			checkIdentity(path.Child("securityContext"), merged.SecurityContext, mode, cfg),
			checkCapabilities(path.Child("securityContext", "capabilities"), merged.SecurityContext.Capabilities, mode),
		) {
			// The same fault is usual in the other modes.
			if !slices.ContainsFunc(errs, func(known *field.Error) bool { return known.Field == wrong.Field }) {
				errs = append(errs, wrong)
			}
		}
	}
	return errs
}

// checkIdentity finds ids by which the rules would not recognise the proxy.
func checkIdentity(path *field.Path, sc *corev1.SecurityContext, mode interception.Mode, cfg config.Config) field.ErrorList {
	want := proxyIdentity(mode, cfg)
	var errs field.ErrorList
	if *sc.RunAsUser != *want.RunAsUser {
		errs = append(errs, field.Invalid(path.Child("runAsUser"), *sc.RunAsUser, fmt.Sprintf(
			"in mode %s the proxy runs as %d; accepted: none, since Shunt sets it: %d, but 0 in TPROXY",
			mode, *want.RunAsUser, cfg.ProxyUID)))
	}
	if *sc.RunAsGroup != *want.RunAsGroup {
		errs = append(errs, field.Invalid(path.Child("runAsGroup"), *sc.RunAsGroup, fmt.Sprintf(
			"the rules know the proxy by it; accepted: none, or %d", cfg.ProxyGID)))
	}
	if *sc.RunAsNonRoot && *want.RunAsUser == 0 {
		errs = append(errs, field.Invalid(path.Child("runAsNonRoot"), true, fmt.Sprintf(
			"in mode %s the proxy runs as 0, to have the use of %s; accepted: none, or false", mode, NetAdmin)))
	}
	if *sc.Privileged && !*sc.AllowPrivilegeEscalation {
		errs = append(errs, field.Invalid(path.Child("privileged"), true,
			"Kubernetes refuses it where allowPrivilegeEscalation is false; accepted: none, or false, or both true"))
	}
	return errs
}

const (
	netRaw    corev1.Capability = "NET_RAW"
	allOfThem corev1.Capability = "ALL"
)

func has(list []corev1.Capability, name corev1.Capability) bool {
	return slices.ContainsFunc(list, func(c corev1.Capability) bool { return strings.EqualFold(string(c), string(name)) })
}

// checkCapabilities finds that in TPROXY the proxy lacks the capability for
// transparent and marked sockets. containerd applies the lists in this order, each
// step undoing those before: add ALL, drop ALL, the rest of add, the rest of drop.
// It knows no name with the prefix CAP_.
func checkCapabilities(path *field.Path, capabilities *corev1.Capabilities, mode interception.Mode) field.ErrorList {
	if mode != interception.ModeTProxy {
		return nil
	}
	var errs field.ErrorList
	if !has(capabilities.Add, NetAdmin) && (!has(capabilities.Add, allOfThem) || has(capabilities.Drop, allOfThem)) {
		errs = append(errs, field.Invalid(path.Child("add"), capabilities.Add, fmt.Sprintf(
			"in mode %s the proxy needs %s, and this list replaces Shunt's; accepted: none, or a list with %[2]s", mode, NetAdmin)))
	}
	if has(capabilities.Drop, NetAdmin) {
		errs = append(errs, field.Invalid(path.Child("drop"), capabilities.Drop, fmt.Sprintf(
			"in mode %s the proxy needs %s; accepted: none, or a list without it, such as ALL", mode, NetAdmin)))
	}
	return errs
}
