package inject_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/cases"
	"github.com/shunt-dev/shunt/inject/config"
)

// anotherValue changes each field of the configuration that a pod may show. The
// field of a change is the key up to a space.
var anotherValue = map[string]func(*config.Config){
	"initImage":        func(c *config.Config) { c.InitImage = "example.com/shunt-init:2" },
	"proxyImage":       func(c *config.Config) { c.ProxyImage = "example.com/envoy:2" },
	"pullPolicy":       func(c *config.Config) { c.PullPolicy = corev1.PullAlways },
	"imagePullSecrets": func(c *config.Config) { c.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "registry"}} },
	"backend":          func(c *config.Config) { c.Backend = "legacy" },
	"interceptFrom":    func(c *config.Config) { c.InterceptFrom = config.InterceptFromNode },
	"proxyUID":         func(c *config.Config) { c.ProxyUID = 4321 },
	"proxyGID":         func(c *config.Config) { c.ProxyGID = 4321 },
	"initResources.limits.memory": func(c *config.Config) {
		c.InitResources = *c.InitResources.DeepCopy()
		c.InitResources.Limits["memory"] = resource.MustParse("96Mi")
	},
	"proxyResources.requests.cpu": func(c *config.Config) {
		c.ProxyResources = *c.ProxyResources.DeepCopy()
		c.ProxyResources.Requests["cpu"] = resource.MustParse("150m")
	},
	"proxyResources.limits.memory": func(c *config.Config) {
		c.ProxyResources = *c.ProxyResources.DeepCopy()
		c.ProxyResources.Limits["memory"] = resource.MustParse("2Gi")
	},
	"concurrency":                            func(c *config.Config) { c.Concurrency = 7 },
	"concurrency all":                        func(c *config.Config) { c.Concurrency = 0 },
	"logLevel":                               func(c *config.Config) { c.LogLevel = "debug" },
	"componentLogLevel":                      func(c *config.Config) { c.ComponentLogLevel = "http:debug" },
	"dnsCapture":                             func(c *config.Config) { c.DNSCapture = config.DNSCaptureResolvers },
	"dnsCapture all":                         func(c *config.Config) { c.DNSCapture = config.DNSCaptureAll },
	"protocolDetection, httpPorts (inbound)": func(c *config.Config) { c.ProtocolDetection = config.ProtocolDetectionAll },
	"protocolDetection, httpPorts (outbound) of ports": func(c *config.Config) {
		c.ProtocolDetection, c.HTTPPorts = config.ProtocolDetectionDeclared, "8080"
	},
	"httpLimits.maxHeaderKB":   func(c *config.Config) { c.HTTPLimits.MaxHeaderKB = 99 },
	"httpLimits.maxStreams":    func(c *config.Config) { c.HTTPLimits.MaxStreams = 99 },
	"httpLimits.headerTimeout": func(c *config.Config) { c.HTTPLimits.HeaderTimeout.Duration = 99 * time.Second },
	"accessLog":                func(c *config.Config) { c.AccessLog = envoy.AccessLogErrors },
	"accessLogQueries":         func(c *config.Config) { c.AccessLogQueries = false },
	"tcpKeepalive.time":        func(c *config.Config) { c.TCPKeepalive.Time.Duration = 99 * time.Second },
	"tcpKeepalive.interval":    func(c *config.Config) { c.TCPKeepalive.Interval.Duration = 99 * time.Second },
	"tcpKeepalive.probes":      func(c *config.Config) { c.TCPKeepalive.Probes = 99 },
	"excludeOutboundIPRanges":  func(c *config.Config) { c.ExcludeOutboundIPRanges = "10.0.0.0/8" },
	"dropInvalid":              func(c *config.Config) { c.DropInvalid = true },
	"drainDuration": func(c *config.Config) {
		c.NativeSidecar, c.DrainDuration.Duration = config.NativeSidecarDisabled, 9*time.Second
	},
	"holdApplicationUntilProxyStarts": func(c *config.Config) {
		c.NativeSidecar, c.HoldApplicationUntilProxyStarts = config.NativeSidecarDisabled, false
	},
	"nativeSidecar":         func(c *config.Config) { c.NativeSidecar = config.NativeSidecarDisabled },
	"tproxyPortRange":       func(c *config.Config) { c.TProxyPortRange = "40000-50000" },
	"prometheusAnnotations": func(c *config.Config) { c.PrometheusAnnotations = false },
}

// invisible are the fields that an injected pod cannot show.
var invisible = []string{
	"allowedProxyImages", "httpPorts", "protocolDetection", "checkPodSecurity", "defaultPolicy", "alwaysInjectSelector",
	"neverInjectSelector", "forbiddenAnnotations", "revision", "sidecar", "templates",
}

// TestChangesNameTheSetting: where a field of the configuration changes, the pods
// that were injected before differ in the setting of this name, in both modes.
func TestChangesNameTheSetting(t *testing.T) {
	for name, change := range anotherValue {
		setting := strings.TrimSuffix(strings.TrimSuffix(name, " all"), " of ports")
		for _, mode := range []string{"REDIRECT", "TPROXY"} {
			if setting == "tproxyPortRange" && mode != "TPROXY" || setting == "proxyUID" && mode == "TPROXY" {
				continue // the proxy is root there
			}
			t.Run(name+" "+mode, func(t *testing.T) { checkChange(t, setting, mode, change) })
		}
	}
}

func checkChange(t *testing.T, setting, mode string, change func(*config.Config)) {
	pod := cases.Small()
	pod.Annotations = map[string]string{annotation.InterceptionModeKey: mode}
	before, after := config.Default(), config.Default()
	change(&after)
	if setting == "drainDuration" || setting == "holdApplicationUntilProxyStarts" {
		before.NativeSidecar = config.NativeSidecarDisabled
	}
	injected := inject.Inject(pod, enabled, before).Pod
	again := inject.Inject(injected, enabled, after)
	if !again.Inject {
		t.Fatal(again.Reason)
	}
	found := inject.Changes(injected, again.Pod)
	i := slices.IndexFunc(found, func(c inject.Change) bool { return c.Setting == setting })
	if i < 0 || found[i].Was == found[i].Now {
		t.Fatalf("%+v", found)
	}
	// The API server's plug-in AlwaysPullImages sets Always, so that it is no change.
	if back := inject.Changes(again.Pod, injected); len(back) != len(found) && setting != "pullPolicy" {
		t.Errorf("forth %+v, back %+v", found, back)
	}
}

// TestEveryFieldIsChanged: a new field of the configuration gets a name in Changes,
// or is listed as one that a pod cannot show.
func TestEveryFieldIsChanged(t *testing.T) {
	seen := map[string]bool{}
	for name := range anotherValue {
		top, _, _ := strings.Cut(strings.Fields(name)[0], ".")
		seen[strings.TrimSuffix(top, ",")] = true
	}
	for _, leaf := range config.Leaves(config.Default()) {
		if top, _, _ := strings.Cut(leaf.Path, "."); !seen[top] && !slices.Contains(invisible, top) {
			t.Errorf("no change of %s is tried", top)
		}
	}
}

// TestChangesOfAnnotations: settings of annotations have the keys' names.
func TestChangesOfAnnotations(t *testing.T) {
	ns := func(annotations map[string]string) annotation.Namespace {
		return annotation.Namespace{Name: "demo", Labels: enabled.Labels, Annotations: annotations}
	}
	for key, value := range map[string]string{
		annotation.InterceptionModeKey: "TPROXY", annotation.ExcludeOutboundPortsKey: "3306", annotation.IncludeInboundPortsKey: "80",
		annotation.ExcludeInboundPortsKey: "81", annotation.IncludeOutboundIPRangesKey: "10.0.0.0/8", annotation.HealthPortKey: "16000",
		annotation.ReadinessPeriodKey: "7", annotation.ReadinessFailuresKey: "7", annotation.ReadinessInitialDelayKey: "7",
		annotation.KubevirtInterfacesKey: "vm0", annotation.BootstrapOverrideKey: "mine",
	} {
		injected := inject.Inject(cases.Small(), ns(nil), config.Default()).Pod
		again := inject.Inject(injected, ns(map[string]string{key: value}), config.Default())
		found := inject.Changes(injected, again.Pod)
		i := slices.IndexFunc(found, func(c inject.Change) bool { return c.Setting == key })
		if i < 0 || !strings.Contains(found[i].Now, value) {
			t.Errorf("%s=%s: %+v", key, value, found)
		}
	}
}

// TestChangesOfAnotherVersion: another hook or probe of another version is no
// setting that somebody changed, and has the name of its field.
func TestChangesOfAnotherVersion(t *testing.T) {
	now := inject.Inject(cases.Small(), enabled, config.Default()).Pod
	older := now.DeepCopy()
	proxy := &older.Spec.InitContainers[1]
	proxy.Lifecycle, proxy.StartupProbe = nil, &corev1.Probe{PeriodSeconds: 77}
	found := inject.Changes(older, now)
	for _, change := range found {
		if !strings.HasPrefix(change.Setting, "shunt-proxy lifecycle.") && !strings.HasPrefix(change.Setting, "shunt-proxy startupProbe.") {
			t.Errorf("%+v", change)
		}
	}
	if len(found) == 0 {
		t.Error("no change")
	}
}

// TestNoChanges: what API servers add is no change, and a pod of arguments that
// this version does not know is one value.
func TestNoChanges(t *testing.T) {
	pod := inject.Inject(cases.Small(), enabled, config.Default()).Pod
	defaulted := pod.DeepCopy()
	for i := range defaulted.Spec.InitContainers {
		c := &defaulted.Spec.InitContainers[i]
		c.TerminationMessagePath = "/dev/termination-log"
		c.Resources.Limits = maps.Clone(c.Resources.Limits)
		c.Resources.Limits["ephemeral-storage"] = resource.MustParse("1Gi")
	}
	if found := inject.Changes(defaulted, pod); len(found) > 0 {
		t.Errorf("of what an API server sets: %+v", found)
	}
	older := pod.DeepCopy()
	older.Spec.InitContainers[0].Args = []string{"--flag-of-the-past"}
	found := inject.Changes(older, pod)
	if len(found) != 1 || found[0].Setting != "shunt-init args" || found[0].Was != "--flag-of-the-past" {
		t.Errorf("of other arguments: %+v", found)
	}
}
