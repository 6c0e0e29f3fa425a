package inject

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// A pod's own addition to Envoy's bootstrap is a text, by --config-yaml. Envoy
// reads its file first, and merges the text over it: of values that both have
// the pod's counts, and lists are one behind the other, Shunt's first.
// docs/proxy.md has what follows from it.
const (
	// overrideKey is the key in the ConfigMap, which is Istio's.
	overrideKey      = "custom_bootstrap.json"
	acceptedOverride = "the name of a ConfigMap of the pod's namespace, with the key " + overrideKey
)

func parseOverride(text string) (string, error) {
	if len(validation.IsDNS1123Subdomain(text)) > 0 {
		return "", &interception.ValueError{Value: text, Accepted: acceptedOverride}
	}
	return text, nil
}

// overrideVariable holds the text for the command line, which Kubernetes
// replaces it in: Envoy takes one file only.
const overrideVariable = "BOOTSTRAP_OVERRIDE"

// override gives Envoy the text. A pod whose ConfigMap is not there, or has not
// the key, waits for it.
func override(c corev1.Container, configMap string) corev1.Container {
	c.Args = slices.Concat(c.Args, []string{"--config-yaml", "$(" + overrideVariable + ")"})
	c.Env = append(slices.Clone(c.Env), corev1.EnvVar{Name: overrideVariable, ValueFrom: &corev1.EnvVarSource{
		ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: configMap}, Key: overrideKey,
		},
	}})
	return c
}
