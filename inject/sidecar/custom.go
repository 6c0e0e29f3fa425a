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

// customPrefix begins the names of the variables that a custom sidecar is
// given; nothing in its template may.
const customPrefix = "SHUNT_"

// healthVariable is the one that has the port for health.
const healthVariable = customPrefix + "HEALTH_PORT"

// Addresses that a proxy dials the application from in REDIRECT: the rules
// know its connections by them.
const (
	inboundSourceIPv4 = "127.0.0.6"
	inboundSourceIPv6 = "::6"
)

// mergeCustom puts the user's container over what any proxy has. Lists whose
// elements Kubernetes tells apart by a key (env, ports, volumeMounts) are
// merged by it, other lists replaced.
func mergeCustom(mode interception.Mode, cfg config.Config) (corev1.Container, error) {
	base := baseContainer(mode, cfg)
	merged, err := merge(base, *cfg.Sidecar.Container.DeepCopy())
	if err != nil {
		return corev1.Container{}, err
	}
	merged.VolumeMounts = append([]corev1.VolumeMount{podplan.SharedMount(true)}, merged.VolumeMounts...)
	// Not one on the inbound port, which any proxy has: to connect to it is to
	// be sent to it by the rules, and a proxy that dials where a connection was
	// going would go on calling itself. The health port is reached past the
	// rules. A proxy that serves nothing there, and whose template has no probe
	// of its own, does not start, and kubelet says why; without any probe the
	// application would start before its proxy listens.
	if merged.StartupProbe == nil {
		merged.StartupProbe = startupProbe()
	}
	return merged, nil
}

// merge puts one container over another by strategic merge. The name stays.
func merge(base, over corev1.Container) (corev1.Container, error) {
	over.Name = base.Name // which is always in its JSON, be it empty
	original, err := json.Marshal(base)
	if err != nil {
		return corev1.Container{}, fmt.Errorf("encode what any sidecar has: %w", err)
	}
	patch, err := json.Marshal(over)
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

// mustMergeCustom is merge for a configuration that Validate has passed.
func mustMergeCustom(mode interception.Mode, cfg config.Config) corev1.Container {
	merged, err := mergeCustom(mode, cfg)
	if err != nil {
		panic("sidecar from a valid configuration: " + err.Error())
	}
	return merged
}

// customEnv tells a custom sidecar what the rules expect of it.
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
