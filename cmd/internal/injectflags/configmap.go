package injectflags

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/shunt-dev/shunt/inject/config"
)

// configKey names the key of the ConfigMap in config/manager.
const configKey = "config.yaml"

// OfConfigMap takes a configuration out of a ConfigMap, and says under which key
// it stood, and what stands beside it. What is no ConfigMap is the configuration
// itself, which has beside it what is beside its file.
func OfConfigMap(text []byte, beside config.ReadFile) (content []byte, key string, among config.ReadFile, err error) {
	if !isConfigMap(text) {
		return text, "", beside, nil // and what is wrong with it is for ParseConfig to say
	}
	var holder corev1.ConfigMap
	if err := yaml.UnmarshalStrict(text, &holder); err != nil {
		return nil, "", nil, fmt.Errorf("read the ConfigMap: %w", err)
	}
	among = func(name string) ([]byte, error) {
		if content, ok := holder.Data[name]; ok {
			return []byte(content), nil
		}
		return nil, fmt.Errorf("data[%s]: Required value", name)
	}
	keys := slices.Sorted(maps.Keys(holder.Data))
	switch {
	case slices.Contains(keys, configKey):
		key = configKey
	case len(keys) == 1:
		key = keys[0]
	default:
		return nil, "", nil, fmt.Errorf("data: Invalid value: the ConfigMap has the keys %q; accepted: %s, or a single one",
			strings.Join(keys, ", "), configKey)
	}
	return []byte(holder.Data[key]), key, among, nil
}

func isConfigMap(text []byte) bool {
	var is metav1.TypeMeta
	return yaml.Unmarshal(text, &is) == nil && is == (metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"})
}
