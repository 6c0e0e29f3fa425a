package sidecar

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/strict"
)

// checkUserVolumes finds volumes whose names are taken, and mounts of unknown
// volumes.
func checkUserVolumes(pod *corev1.Pod, req annotation.Request, cfg config.Config) (found strict.Faults) {
	if len(req.UserVolumes)+len(req.UserMounts) == 0 {
		return strict.Faults{}
	}
	ofPod := sets.New(podplan.VolumeNames(pod.Spec.Volumes)...)
	ofSidecar := sets.New(podplan.VolumeNames(ConfiguredVolumes(req, cfg))...)
	for _, v := range req.UserVolumes {
		switch {
		case ofPod.Has(v.Name):
			found.Add(func() *field.Error {
				return req.Source.Invalid(annotation.UserVolumeKey, fmt.Sprintf(
					"the pod has a volume %q, which %s can mount as it is; accepted: any other name", v.Name,
					annotation.UserVolumeMountKey))
			})
		case ofSidecar.Has(v.Name):
			found.Add(func() *field.Error {
				return req.Source.Invalid(annotation.UserVolumeKey, fmt.Sprintf(
					"%q is the name of a volume of the injector's sidecar; accepted: any other name", v.Name))
			})
		}
	}
	added := sets.New(podplan.VolumeNames(req.UserVolumes)...)
	for _, m := range req.UserMounts {
		if !added.Has(m.Name) && !ofPod.Has(m.Name) && !ofSidecar.Has(m.Name) {
			found.Add(func() *field.Error {
				return req.Source.Invalid(annotation.UserVolumeMountKey, fmt.Sprintf(
					"there is no volume %q; accepted: the name of one of the pod's volumes or of %s", strict.Shorten(m.Name),
					annotation.UserVolumeKey))
			})
		}
	}
	return found
}

// ConfiguredVolumes returns the sidecar's volumes of the configuration.
func ConfiguredVolumes(req annotation.Request, cfg config.Config) []corev1.Volume {
	all := cfg.Sidecar.Volumes
	for _, name := range req.Templates {
		all = slices.Concat(all, cfg.Templates[name].Volumes)
	}
	return all
}

// Volumes returns all volumes that a pod gets for its sidecar.
func Volumes(req annotation.Request, cfg config.Config) []corev1.Volume {
	all := ConfiguredVolumes(req, cfg)
	if len(req.UserVolumes) > 0 {
		all = append(slices.Clone(all), req.UserVolumes...)
	}
	return all
}
