package inject

import (
	"math"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// envoyVariables are those that Envoy's command line has in it.
var envoyVariables = []string{"POD_NAME", "POD_NAMESPACE"}

// flushMilliseconds is how long a line of the access log may wait. Envoy's own
// 10 seconds are long for a person who watches it.
const flushMilliseconds = 1000

// envoyContainer is the sidecar where that is Envoy.
func envoyContainer(mode interception.Mode, cfg Config) corev1.Container {
	c := anyProxy(mode, cfg)
	c.Image = cfg.ProxyImage
	c.Command = []string{"envoy"}
	c.Args = envoyArgs(cfg)
	c.Env = []corev1.EnvVar{fromPod("POD_NAME", "metadata.name"), fromPod("POD_NAMESPACE", "metadata.namespace")}
	c.Ports = []corev1.ContainerPort{
		{Name: "shunt-health", ContainerPort: int32(interception.HealthPort), Protocol: corev1.ProtocolTCP},
		// Istio's name: what scrapes its sidecars finds this one too.
		{Name: "http-envoy-prom", ContainerPort: int32(interception.MetricsPort), Protocol: corev1.ProtocolTCP},
	}
	c.StartupProbe = startupProbe()
	c.ReadinessProbe = healthProbe(15, 4)
	c.VolumeMounts = []corev1.VolumeMount{podplan.SharedMount(true), noToken()}
	if cfg.drains() {
		c.Lifecycle = drain(cfg.DrainDuration.Duration)
	}
	return c
}

// drains reports whether the end of a pod waits for what is under way through
// Envoy. A native sidecar is stopped last, so that the bytes that it carries
// need nobody to wait for them; but a client of HTTP that keeps its connection
// open is to be told to go elsewhere. A regular container is stopped together
// with the application.
func (c Config) drains() bool { return !c.native() || c.ProtocolDetection != ProtocolDetectionNone }

// drain is run by kubelet when it tells the pod's own containers to end.
// Envoy's image has no program for it, but what shunt-init left.
func drain(most time.Duration) *corev1.Lifecycle {
	return &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{
		Command: []string{envoy.SharedDirectory + "/shunt-init", "drain", "--duration", most.String()},
	}}}
}

// envoyArgs is Envoy's command line. Kubernetes replaces $(NAME) in it. Without
// --concurrency Envoy takes all cores, and for 0 it would take one.
func envoyArgs(cfg Config) []string {
	args := []string{
		"--config-path", envoy.SharedDirectory + "/" + envoy.BootstrapFile,
		"--service-cluster", podplan.ProxyContainerName,
		"--service-node", "$(POD_NAME).$(POD_NAMESPACE)",
	}
	if cfg.Concurrency > 0 {
		args = append(args, "--concurrency", strconv.Itoa(int(cfg.Concurrency)))
	}
	args = append(args, "--log-level", cfg.LogLevel)
	if cfg.ComponentLogLevel != "" {
		args = append(args, "--component-log-level", cfg.ComponentLogLevel)
	}
	if cfg.drains() {
		// Whoever is to go is told so at once, and not spread over the drain:
		// what it does last may well take all of the time.
		args = append(args, "--drain-strategy", "immediate",
			"--drain-time-s", strconv.Itoa(int(math.Ceil(cfg.DrainDuration.Seconds()))))
	}
	return append(args, "--file-flush-interval-msec", strconv.Itoa(flushMilliseconds), "--disable-hot-restart")
}

func fromPod(name, fieldPath string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: fieldPath},
	}}
}
