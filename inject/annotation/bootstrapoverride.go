package annotation

import (
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// A pod's own addition to Envoy's bootstrap is a text, by --config-yaml. Envoy
// reads its file first, and merges the text over it: of values that both have
// the pod's counts, and lists are one behind the other, Shunt's first.
// docs/proxy.md has what follows from it.
const (
	// OverrideKey is the key in the ConfigMap, which is Istio's.
	OverrideKey      = "custom_bootstrap.json"
	acceptedOverride = "the name of a ConfigMap of the pod's namespace, with the key " + OverrideKey
)

func parseBootstrapOverride(text string) (string, error) {
	if len(validation.IsDNS1123Subdomain(text)) > 0 {
		return "", &interception.ValueError{Value: text, Accepted: acceptedOverride}
	}
	return text, nil
}
