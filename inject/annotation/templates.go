package annotation

import (
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/shunt-dev/shunt/initimage/interception"
)

// BuiltinTemplate is the sidecar itself. Each list of templates begins with it.
const BuiltinTemplate = "sidecar"

const (
	// GatewayTemplate is Istio's template for its gateways.
	GatewayTemplate = "gateway"
	// NoGateway is the reason why Shunt does not support it.
	NoGateway = "Shunt has no gateway"
)

const acceptedTemplates = BuiltinTemplate + ", and behind it, separated by commas, names of templates of the injector's configuration"

// parseTemplates reads names of templates. It returns them without the first,
// which is BuiltinTemplate.
func parseTemplates(text string) ([]string, error) {
	names := strings.Split(text, ",")
	seen := make(map[string]bool, len(names))
	for i, name := range names {
		names[i] = strings.TrimSpace(name)
		if len(validation.IsDNS1123Label(names[i])) > 0 {
			return nil, &interception.ValueError{Value: names[i], Accepted: acceptedTemplates}
		}
		if seen[names[i]] {
			return nil, &interception.ValueError{Value: names[i], Reason: "it is there twice", Accepted: acceptedTemplates}
		}
		seen[names[i]] = true
	}
	if names[0] != BuiltinTemplate {
		reason := "the first one is the sidecar itself"
		if names[0] == GatewayTemplate {
			reason = NoGateway
		}
		return nil, &interception.ValueError{Value: names[0], Reason: reason, Accepted: acceptedTemplates}
	}
	return names[1:], nil
}
