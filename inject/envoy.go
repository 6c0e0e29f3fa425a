package inject

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/bootstrap"
)

// drainSeconds is how long Envoy spreads the closing of connections over when
// it is told to drain; Istio's number.
const drainSeconds = 45

// flushMilliseconds is how long a line of the access log may wait. Envoy's own
// 10 seconds are long for a person who watches it.
const flushMilliseconds = 1000

// envoy is the sidecar where that is Envoy.
func envoy(mode interception.Mode, cfg Config) corev1.Container {
	c := anyProxy(mode, cfg)
	c.Image = cfg.ProxyImage
	c.Command = []string{"envoy"}
	c.Args = proxyArgs(mode, cfg)
	c.Env = []corev1.EnvVar{fromPod("POD_NAME", "metadata.name"), fromPod("POD_NAMESPACE", "metadata.namespace")}
	c.Ports = []corev1.ContainerPort{
		{Name: "shunt-health", ContainerPort: int32(interception.HealthPort), Protocol: corev1.ProtocolTCP},
		// Istio's name: what scrapes its sidecars finds this one too.
		{Name: "http-envoy-prom", ContainerPort: int32(interception.MetricsPort), Protocol: corev1.ProtocolTCP},
	}
	c.StartupProbe = startupProbe()
	c.ReadinessProbe = healthProbe(15, 4)
	return c
}

// proxyArgs is Envoy's command line. Kubernetes replaces $(NAME) in it and
// turns $$ into $: the two references here are meant, and nothing else has a
// dollar sign, because the bootstrap is made of numbers and of words of ours.
func proxyArgs(mode interception.Mode, cfg Config) []string {
	return []string{
		"--config-yaml", bootstrapText(mode, cfg),
		"--service-cluster", ProxyContainerName,
		"--service-node", "$(POD_NAME).$(POD_NAMESPACE)",
		"--concurrency", strconv.Itoa(int(cfg.Concurrency)),
		"--log-level", cfg.LogLevel,
		"--drain-time-s", strconv.Itoa(drainSeconds),
		"--file-flush-interval-msec", strconv.Itoa(flushMilliseconds),
		"--disable-hot-restart",
	}
}

// bootstrapOptions are those of the proxy's bootstrap. Ports and mark are the
// ones that interception.Default gives to shunt-init.
func bootstrapOptions(mode interception.Mode, cfg Config) bootstrap.Options {
	opts := bootstrap.DefaultOptions()
	opts.Mode = mode
	opts.IPv4 = slices.Contains(cfg.IPFamilies, corev1.IPv4Protocol)
	opts.IPv6 = slices.Contains(cfg.IPFamilies, corev1.IPv6Protocol)
	return opts
}

func bootstrapText(mode interception.Mode, cfg Config) string {
	text, err := bootstrap.Text(bootstrapOptions(mode, cfg))
	if err != nil {
		// Mode and families come from types that this package has checked.
		panic("bootstrap from a valid configuration: " + err.Error())
	}
	return text
}

func fromPod(name, fieldPath string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: fieldPath},
	}}
}
