package inject

import (
	"math"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/bootstrap"
)

// envoyVariables are those that Envoy's command line has in it.
var envoyVariables = []string{"POD_NAME", "POD_NAMESPACE"}

// flushMilliseconds is how long a line of the access log may wait. Envoy's own
// 10 seconds are long for a person who watches it.
const flushMilliseconds = 1000

// envoy is the sidecar where that is Envoy.
func envoy(mode interception.Mode, opts bootstrap.Options, cfg Config) corev1.Container {
	c := anyProxy(mode, cfg)
	c.Image = cfg.ProxyImage
	c.Command = []string{"envoy"}
	c.Args = envoyArgs(opts, cfg)
	c.Env = []corev1.EnvVar{fromPod("POD_NAME", "metadata.name"), fromPod("POD_NAMESPACE", "metadata.namespace")}
	c.Ports = []corev1.ContainerPort{
		{Name: "shunt-health", ContainerPort: int32(interception.HealthPort), Protocol: corev1.ProtocolTCP},
		// Istio's name: what scrapes its sidecars finds this one too.
		{Name: "http-envoy-prom", ContainerPort: int32(interception.MetricsPort), Protocol: corev1.ProtocolTCP},
	}
	c.StartupProbe = startupProbe()
	c.ReadinessProbe = healthProbe(15, 4)
	c.VolumeMounts = sharedMounts(mode)
	if mode != interception.ModeNone {
		c.Lifecycle = drain(cfg.DrainDuration.Duration)
	}
	return c
}

// drain has the end of a pod wait until nothing is under way through Envoy.
// Kubelet runs it when it tells the pod's own containers to end, and ends the
// proxy after them. Envoy's image has no program for it, but what shunt-init
// left.
func drain(most time.Duration) *corev1.Lifecycle {
	return &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{
		Command: []string{bootstrap.SharedDirectory + "/shunt-init", "drain", "--duration", most.String()},
	}}}
}

// envoyArgs is Envoy's command line. Kubernetes replaces $(NAME) in it and
// turns $$ into $: the two references here are meant, and nothing else has a
// dollar sign, because the bootstrap is made of numbers and of words of ours.
func envoyArgs(opts bootstrap.Options, cfg Config) []string {
	args := []string{
		bootstrapFlag, bootstrapText(opts),
		"--service-cluster", ProxyContainerName,
		"--service-node", "$(POD_NAME).$(POD_NAMESPACE)",
		"--concurrency", strconv.Itoa(int(cfg.Concurrency)),
		"--log-level", cfg.LogLevel,
	}
	if cfg.ComponentLogLevel != "" {
		args = append(args, "--component-log-level", cfg.ComponentLogLevel)
	}
	return append(args,
		// Whoever is to go is told so at once, and not spread over the drain:
		// what it does last may well take all of the time.
		"--drain-strategy", "immediate",
		"--drain-time-s", strconv.Itoa(int(math.Ceil(cfg.DrainDuration.Seconds()))),
		"--file-flush-interval-msec", strconv.Itoa(flushMilliseconds),
		"--disable-hot-restart",
	)
}

// bootstrapOptions are those of Envoy's bootstrap. Ports and mark are the ones
// that interception.Default gives to shunt-init.
func bootstrapOptions(req request, cfg Config) bootstrap.Options {
	opts := bootstrap.DefaultOptions()
	opts.Mode = req.mode
	opts.IPv4 = slices.Contains(cfg.IPFamilies, corev1.IPv4Protocol)
	opts.IPv6 = slices.Contains(cfg.IPFamilies, corev1.IPv6Protocol)
	opts.HealthPort = req.health()
	opts.ProtocolDetection = cfg.ProtocolDetection == ProtocolDetectionAuto
	opts.ServerFirstPorts = cfg.ServerFirstPorts
	if cfg.DNSCapture != DNSCaptureNone {
		opts.DNSPort = interception.DefaultDNSPort
		opts.DNSAllInterfaces = len(req.spec.VirtualInterfaces) > 0
	}
	return opts
}

// bootstrapFlag is the one before the bootstrap.
const bootstrapFlag = "--config-yaml"

func bootstrapText(opts bootstrap.Options) string {
	text, err := bootstrap.Text(opts)
	if err != nil {
		// They come from types that this package has checked.
		panic("bootstrap from a valid configuration: " + err.Error())
	}
	return text
}

func fromPod(name, fieldPath string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: fieldPath},
	}}
}
