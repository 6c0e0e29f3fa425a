package sidecar

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
)

// envoyVariables are those that Envoy's command line has in it.
var envoyVariables = []string{"POD_NAME", "POD_NAMESPACE"}

// flushMilliseconds is how long a line of the access log may wait. Envoy's own
// 10 seconds are long for a person who watches it.
const flushMilliseconds = 1000

// envoyContainer is the sidecar where that is Envoy.
func envoyContainer(mode interception.Mode, cfg config.Config) corev1.Container {
	c := baseContainer(mode, cfg)
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
	if cfg.Drains() {
		c.Lifecycle = drain(cfg.DrainDuration.Duration)
	}
	return c
}

// drain is run by kubelet when it tells the pod's own containers to end.
// Envoy's image has no program for it, but what shunt-init left.
func drain(most time.Duration) *corev1.Lifecycle {
	return &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{
		Command: []string{envoy.SharedDirectory + "/shunt-init", "drain", "--duration", most.String()},
	}}}
}

// envoyArgs is Envoy's command line. Kubernetes replaces $(NAME) in it. Without
// --concurrency Envoy takes all cores, and for 0 it would take one.
func envoyArgs(cfg config.Config) []string {
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
	if cfg.Drains() {
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

// overrideVariable holds the text for the command line, which Kubernetes
// replaces it in: Envoy takes one file only.
const overrideVariable = "BOOTSTRAP_OVERRIDE"

// withOverride gives Envoy the text. A pod whose ConfigMap is not there, or has not
// the key, waits for it.
func withOverride(c corev1.Container, configMap string) corev1.Container {
	c.Args = slices.Concat(c.Args, []string{"--config-yaml", "$(" + overrideVariable + ")"})
	c.Env = append(slices.Clone(c.Env), corev1.EnvVar{Name: overrideVariable, ValueFrom: &corev1.EnvVarSource{
		ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: configMap}, Key: annotation.OverrideKey,
		},
	}})
	return c
}

// httpPortNames are the protocols for which Istio's names of ports stand,
// "name" or "name-suffix", that Envoy tells apart on such a port.
var httpPortNames = []string{"http", "http2", "grpc", "grpc-web", "https", "tls"}

// declaresHTTP reports whether the name of a port says that it is for one of
// httpPortNames.
func declaresHTTP(name string) bool {
	return slices.ContainsFunc(httpPortNames, func(protocol string) bool {
		return name == protocol || strings.HasPrefix(name, protocol+"-")
	})
}

// EnvoySettings are what the pod's Envoy is told. The configuration is the one
// that holds for the pod.
func EnvoySettings(pod *corev1.Pod, req annotation.Request, cfg config.Config, memoryLimit int64) envoy.Settings {
	settings := envoy.Settings{
		HealthPort: req.HealthPort(),
		HTTP: envoy.HTTPLimits{
			MaxHeaderKB: uint32(cfg.HTTPLimits.MaxHeaderKB), MaxStreams: uint32(cfg.HTTPLimits.MaxStreams),
			HeaderSeconds: seconds(cfg.HTTPLimits.HeaderTimeout),
		},
		AccessLog: cfg.AccessLog, AccessLogQueries: cfg.AccessLogQueries,
		Keepalive: envoy.Keepalive{
			TimeSeconds: seconds(cfg.TCPKeepalive.Time), IntervalSeconds: seconds(cfg.TCPKeepalive.Interval),
			Probes: uint32(cfg.TCPKeepalive.Probes),
		},
		MemoryLimit: memoryLimit,
	}
	switch cfg.ProtocolDetection {
	case config.ProtocolDetectionAll:
		settings.InboundHTTPPorts, settings.OutboundHTTPPorts = envoy.AllPorts, envoy.AllPorts
	case config.ProtocolDetectionDeclared:
		asked := cfg.HTTPPortRanges()
		settings.InboundHTTPPorts = interception.NewPortRanges(slices.Concat(asked, declaredPorts(pod))...).String()
		settings.OutboundHTTPPorts = asked.String()
	}
	return settings
}

// declaredPorts are those of the pod that its containers declare for HTTP.
func declaredPorts(pod *corev1.Pod) interception.PortRanges {
	var ports interception.PortRanges
	for _, c := range podplan.AllContainers(pod) {
		for _, p := range c.Ports {
			valid := 0 < p.ContainerPort && p.ContainerPort <= podplan.MaxPort
			if valid && podplan.Protocol(p) == corev1.ProtocolTCP && declaresHTTP(p.Name) {
				ports = append(ports, interception.PortRange{First: uint16(p.ContainerPort), Last: uint16(p.ContainerPort)})
			}
		}
	}
	return ports
}

// seconds are those of a time that Validate has passed, at least one of them
// unless it is 0.
func seconds(d metav1.Duration) uint32 { return uint32(math.Ceil(d.Seconds())) }
