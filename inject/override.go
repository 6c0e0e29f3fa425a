package inject

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// A pod's own addition to Envoy's bootstrap is a file, by --config-path. Envoy
// reads that first, and merges Shunt's bootstrap, by --config-yaml, over it: of
// values that both have Shunt's counts, and lists are one behind the other, the
// pod's first. docs/proxy.md has what follows from it.
const (
	// overrideVolumeName is that of the volume that holds the file.
	overrideVolumeName = "shunt-bootstrap"
	overrideDirectory  = "/shunt-bootstrap"
	// overrideFile is the key in the ConfigMap, which is Istio's.
	overrideFile = "custom_bootstrap.json"

	acceptedOverride = "the name of a ConfigMap of the pod's namespace, with the key " + overrideFile
)

func parseOverride(text string) (string, error) {
	if len(validation.IsDNS1123Subdomain(text)) > 0 {
		return "", &interception.ValueError{Value: text, Accepted: acceptedOverride}
	}
	return text, nil
}

// overridden reports whether Envoy gets a file beside its bootstrap.
func (r request) overridden(cfg Config) bool {
	return r.bootstrapOverride != "" && cfg.Sidecar.Type != SidecarCustom
}

// overrideVolume keeps a pod from starting whose ConfigMap is not there, or has
// not the key.
func overrideVolume(configMap string) corev1.Volume {
	return corev1.Volume{Name: overrideVolumeName, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: configMap},
		Items:                []corev1.KeyToPath{{Key: overrideFile, Path: overrideFile}},
	}}}
}

// override shows Envoy the file.
func override(c corev1.Container) corev1.Container {
	c.Args = slices.Concat([]string{"--config-path", overrideDirectory + "/" + overrideFile}, c.Args)
	c.VolumeMounts = append(slices.Clone(c.VolumeMounts),
		corev1.VolumeMount{Name: overrideVolumeName, MountPath: overrideDirectory, ReadOnly: true})
	return c
}
