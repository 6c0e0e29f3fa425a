package annotation

import (
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// A pod's own addition to Envoy's bootstrap is passed with --config-yaml. Envoy
// reads its file first and merges the text over it: the pod's values replace
// Shunt's, and the pod's list items are added after Shunt's. docs/proxy.md
// describes the consequences.
const (
	// OverrideKey is the key in the ConfigMap, the same as Istio's.
	OverrideKey      = "custom_bootstrap.json"
	acceptedOverride = "the name of a ConfigMap of the pod's namespace, with the key " + OverrideKey
)

func parseBootstrapOverride(text string) (string, error) {
	if len(validation.IsDNS1123Subdomain(text)) > 0 {
		return "", &interception.ValueError{Value: text, Accepted: acceptedOverride}
	}
	return text, nil
}
