package sidecar

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// customPrefix begins the names of the variables that the injector sets in a
// custom sidecar; those of its template must not.
const customPrefix = "SHUNT_"

// customStartSeconds is how long a custom sidecar may take to start.
const customStartSeconds = 600

// healthVariable has the health port.
const healthVariable = customPrefix + "HEALTH_PORT"

// Source addresses of the proxy's connections to the application in REDIRECT: the
// rules match them.
const (
	inboundSourceIPv4 = "127.0.0.6"
	inboundSourceIPv6 = "::6"
)

// mergeCustom merges the user's container with what every proxy has. Lists with a
// merge key (env, ports, volumeMounts) are merged, other lists replaced.
func mergeCustom(mode interception.Mode, cfg config.Config) (corev1.Container, error) {
	base := baseContainer(mode, cfg)
	merged, err := merge(base, *cfg.Sidecar.Container.DeepCopy())
	if err != nil {
		return corev1.Container{}, err
	}
	merged.VolumeMounts = append([]corev1.VolumeMount{podplan.SharedMount(true)}, merged.VolumeMounts...)
	// The probe uses the health port, which the rules do not intercept. On the
	// inbound port, a proxy that dials the original destination would call itself
	// without end. A proxy without a health port and a probe of its own does not
	// start, and kubelet reports why; without any probe the application would start
	// before the proxy listens.
	if merged.StartupProbe == nil {
		merged.StartupProbe = startupProbe(customStartSeconds)
	}
	return merged, nil
}

// merge overrides one container with another by strategic merge. The name stays.
func merge(base, override corev1.Container) (corev1.Container, error) {
	override.Name = base.Name // the JSON always has it, even if empty
	original, err := json.Marshal(base)
	if err != nil {
		return corev1.Container{}, fmt.Errorf("encode what any sidecar has: %w", err)
	}
	patch, err := json.Marshal(override)
	if err != nil {
		return corev1.Container{}, fmt.Errorf("encode the container: %w", err)
	}
	text, err := strategicpatch.StrategicMergePatch(original, patch, corev1.Container{})
	if err != nil {
		return corev1.Container{}, fmt.Errorf("merge the container: %w", err)
	}
	var merged corev1.Container
	if err := json.Unmarshal(text, &merged); err != nil {
		return corev1.Container{}, fmt.Errorf("decode the merged container: %w", err)
	}
	return merged, nil
}

// mustMergeCustom runs mergeCustom for a configuration that has passed Validate.
func mustMergeCustom(mode interception.Mode, cfg config.Config) corev1.Container {
	merged, err := mergeCustom(mode, cfg)
	if err != nil {
		panic("sidecar from a valid configuration: " + err.Error())
	}
	return merged
}

// customEnv returns the variables that tell a custom sidecar what the rules
// expect.
func customEnv(mode interception.Mode, cfg config.Config) []corev1.EnvVar {
	var env []corev1.EnvVar
	set := func(name, value string) {
		env = append(env, corev1.EnvVar{Name: customPrefix + name, Value: value})
	}
	number := func(name string, value int64) { set(name, strconv.FormatInt(value, 10)) }
	set("INTERCEPTION_MODE", string(mode))
	number("INBOUND_PORT", int64(interception.DefaultInboundPort))
	number("OUTBOUND_PORT", int64(interception.DefaultOutboundPort))
	if cfg.DNSCapture != config.DNSCaptureNone {
		number("DNS_PORT", int64(interception.DefaultDNSPort))
	}
	number(strings.TrimPrefix(healthVariable, customPrefix), int64(interception.HealthPort))
	number("METRICS_PORT", int64(interception.MetricsPort))
	number("ADMIN_PORT", int64(interception.AdminPort))
	number("MARK", int64(interception.DefaultMark))
	if mode == interception.ModeRedirect {
		set("INBOUND_SOURCE_IPV4", inboundSourceIPv4)
		set("INBOUND_SOURCE_IPV6", inboundSourceIPv6)
	}
	number("PROXY_UID", cfg.ProxyUID)
	number("PROXY_GID", cfg.ProxyGID)
	return env
}

// isCustomVariable reports whether a variable is one of those that the
// injector sets in a custom sidecar.
func isCustomVariable(v corev1.EnvVar) bool { return strings.HasPrefix(v.Name, customPrefix) }
