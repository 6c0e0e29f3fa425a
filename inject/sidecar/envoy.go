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

// envoyVariables are those that Envoy's command line uses.
var envoyVariables = []string{"POD_NAME", "POD_NAMESPACE"}

// flushMilliseconds is how long a line of the access log may wait. Envoy's default
// of 10 seconds is long for a person who watches it.
const flushMilliseconds = 1000

// envoyStartSeconds is how long Envoy may take to start, which is most often a
// quarter of a second. As long as its postStart hook waits, kubelet shows neither
// its state nor its log.
const envoyStartSeconds = 60

// envoyContainer returns the sidecar with Envoy. Hold makes a hook of its startup
// probe.
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
	c.StartupProbe = startupProbe(envoyStartSeconds)
	c.ReadinessProbe = healthProbe(15, 4)
	c.VolumeMounts = []corev1.VolumeMount{podplan.SharedMount(true), noToken()}
	if cfg.Drains() {
		c.Lifecycle = drain(cfg.DrainDuration.Duration)
	}
	return c
}

// drain returns the hook that kubelet runs when it stops the pod's containers.
// Envoy's image has no program for it, so that it runs shunt-init.
func drain(most time.Duration) *corev1.Lifecycle {
	return &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{
		Command: []string{envoy.SharedDirectory + "/shunt-init", "drain", "--duration", most.String()},
	}}}
}

// envoyArgs returns Envoy's arguments, in which Kubernetes expands $(NAME).
// Without --concurrency Envoy uses all cores, and for 0 it would use one.
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
		// All connections are told to close at once, and not spread over the drain:
		// the last request may need all of the time.
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

// overrideVariable has the text that Kubernetes expands on the command line: Envoy
// reads only one file.
const overrideVariable = "BOOTSTRAP_OVERRIDE"

// withOverride returns Envoy's container with the override. A pod whose ConfigMap
// or key is missing waits for it.
func withOverride(c corev1.Container, configMap string) corev1.Container {
	c.Args = slices.Concat(c.Args, []string{"--config-yaml", "$(" + overrideVariable + ")"})
	c.Env = append(slices.Clone(c.Env), corev1.EnvVar{Name: overrideVariable, ValueFrom: &corev1.EnvVarSource{
		ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: configMap}, Key: annotation.OverrideKey,
		},
	}})
	return c
}

// httpPortNames are the protocols that Envoy detects on a port with such a name,
// "name" or "name-suffix", as in Istio.
var httpPortNames = []string{"http", "http2", "grpc", "grpc-web", "https", "tls"}

// declaresHTTP reports whether a port's name declares one of httpPortNames.
func declaresHTTP(name string) bool {
	return slices.ContainsFunc(httpPortNames, func(protocol string) bool {
		return name == protocol || strings.HasPrefix(name, protocol+"-")
	})
}

// EnvoySettings returns the settings of the pod's bootstrap. cfg is the
// configuration merged with the pod's annotations.
func EnvoySettings(pod *corev1.Pod, req annotation.Request, cfg config.Config, memoryLimit int64) envoy.Settings {
	settings := envoy.Settings{
		HealthPort: req.HealthPort(),
		HTTP: envoy.HTTPLimits{
			MaxHeaderKB: uint32(cfg.HTTPLimits.MaxHeaderKB), MaxStreams: uint32(cfg.HTTPLimits.MaxStreams),
			HeaderSeconds: seconds(cfg.HTTPLimits.HeaderTimeout),
		},
		AccessLog: cfg.AccessLog, AccessLogQueries: cfg.AccessLogQueries,
		Probes: loggedProbes(pod, req.Mode, cfg.AccessLog), StatsMatcher: cfg.ProxyStatsMatcher,
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

// declaredPorts returns the ports that the pod's containers declare for HTTP.
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

// seconds returns a duration that has passed Validate in seconds, rounded up.
func seconds(d metav1.Duration) uint32 { return uint32(math.Ceil(d.Seconds())) }
