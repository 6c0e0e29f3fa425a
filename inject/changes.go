package inject

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/strict"
)

// Change is a setting in which an injected pod differs from a new one.
type Change struct {
	// Setting has the name that it has in Explanation.Settings, or else the
	// container and its field.
	Setting string `json:"setting"`
	// Was is what the pod has, and Now what a new pod would get; empty for nothing.
	Was string `json:"was"`
	Now string `json:"now"`
}

// Changes compares an injected pod with the pod that Inject makes of it now. They
// may differ in what has no name here, such as the order of containers; then there
// are no changes.
func Changes(pod, now *corev1.Pod) []Change {
	var c changes
	for _, name := range []string{podplan.InitContainerName, podplan.ProxyContainerName} {
		c.container(name, podplan.Container(pod, name), podplan.Container(now, name))
	}
	was, _ := podplan.ReadStatus(pod)
	is, _ := podplan.ReadStatus(now)
	c.status(was, is)
	for _, name := range slices.Compact(slices.Sorted(slices.Values(slices.Concat(was.Sysctls, is.Sysctls)))) {
		setting := "sysctl " + name
		if name == "net.ipv4.ip_local_port_range" {
			setting = "tproxyPortRange"
		}
		c.add(setting, sysctl(pod, name), sysctl(now, name))
	}
	slices.SortStableFunc(c.found, func(a, b Change) int { return cmp.Compare(unnamed(a), unnamed(b)) })
	return c.found
}

// unnamed sorts what is no setting by name behind what is one.
func unnamed(change Change) int {
	for _, kind := range []string{"shunt-", "volumes", "probes", "sysctl "} {
		if strings.HasPrefix(change.Setting, kind) {
			return 1
		}
	}
	return 0
}

// sysctl returns the value of a pod's sysctl; the bounds of a range as ranges of
// ports have them.
func sysctl(pod *corev1.Pod, name string) string {
	if pod.Spec.SecurityContext != nil {
		for _, s := range pod.Spec.SecurityContext.Sysctls {
			if s.Name == name {
				return strings.ReplaceAll(s.Value, " ", "-")
			}
		}
	}
	return ""
}

// changes collects changes, each setting once: several fields may follow from one.
type changes struct{ found []Change }

func (c *changes) add(setting, was, now string) {
	same := func(other Change) bool { return other.Setting == setting }
	if setting != "" && was != now && !slices.ContainsFunc(c.found, same) {
		c.found = append(c.found, Change{setting, strict.Shorten(was), strict.Shorten(now)})
	}
}

// container compares the fields that podplan compares, which are those that neither
// an API server nor a well-known webhook sets.
func (c *changes) container(name string, was, now *podplan.Placed) {
	if was == nil || now == nil {
		c.add("container "+name, imageOf(was), imageOf(now))
		return
	}
	c.add("nativeSidecar", native(was), native(now))
	c.add("holdApplicationUntilProxyStarts", holds(was), holds(now))
	wasFields, nowFields := fieldsOf(was.Container), fieldsOf(now.Container)
	for _, field := range podplan.OtherFields(*now.Container, *was.Container) {
		switch {
		case field == "args" && name == podplan.InitContainerName:
			before, after := initValues(was.Args), initValues(now.Args)
			if before == nil || after == nil {
				before, after = wasFields[field], nowFields[field]
			}
			c.values(name, before, after)
		case field == "args" && runsEnvoy(was, now):
			c.values(name, envoyValues(was.Args), envoyValues(now.Args))
		case field == "resources":
			// The rest is what an API server or LimitRanger added.
			c.values(name, only(wasFields[field], nowFields[field]), nowFields[field])
		case field == "restartPolicy" && was.List != now.List:
		default:
			c.values(name, wasFields[field], nowFields[field])
		}
	}
}

func imageOf(c *podplan.Placed) string {
	if c == nil {
		return ""
	}
	return c.Image
}

// regularList is where the proxy is as a regular container.
const regularList = "containers"

func native(c *podplan.Placed) string {
	if c.List == regularList {
		return "disabled"
	}
	return "enabled"
}

// holds returns whether a regular container makes the application wait; a native
// sidecar always does.
func holds(c *podplan.Placed) string {
	return strconv.FormatBool(c.List != regularList || c.Lifecycle != nil && c.Lifecycle.PostStart != nil)
}

func runsEnvoy(was, now *podplan.Placed) bool {
	envoy := []string{"envoy"}
	return slices.Equal(was.Command, envoy) && slices.Equal(now.Command, envoy)
}

// only returns the values that others has as well.
func only(values, others map[string]string) map[string]string {
	kept := maps.Clone(values)
	maps.DeleteFunc(kept, func(path, _ string) bool { _, there := others[path]; return !there })
	return kept
}

// values adds what differs between two sets of values of a container.
func (c *changes) values(container string, was, now map[string]string) {
	all := maps.Clone(was)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, now)
	for _, path := range slices.Sorted(maps.Keys(all)) {
		c.add(nameOf(container, path), inUnits(path, was[path]), inUnits(path, now[path]))
	}
}

// inUnits returns a number of seconds as the configuration has it, and any other
// value as it is.
func inUnits(path, value string) string {
	inSeconds := path == "--drain-time-s" || strings.HasPrefix(path, "envoy.") && strings.HasSuffix(path, "Seconds")
	if number, err := strconv.Atoi(value); err == nil && inSeconds {
		return (time.Duration(number) * time.Second).String()
	}
	return value
}

// fieldsOf returns the leaves of a container's fields, by field and path.
func fieldsOf(container *corev1.Container) map[string]map[string]string {
	fields := map[string]map[string]string{}
	leaves := config.Leaves(container)
	for _, v := range container.Env {
		leaves = append(leaves, config.Leaf{Path: "env." + v.Name, Value: valueOf(v)})
	}
	for _, leaf := range leaves {
		field, _, _ := strings.Cut(leaf.Path, ".")
		if leaf.Path == "env" {
			continue // its variables are there, one by one
		}
		if fields[field] == nil {
			fields[field] = map[string]string{}
		}
		fields[field][leaf.Path] = leaf.Value
	}
	return fields
}

// valueOf returns a variable's value, or what it comes from.
func valueOf(v corev1.EnvVar) string {
	switch {
	case v.ValueFrom == nil:
		return v.Value
	case v.ValueFrom.ConfigMapKeyRef != nil:
		return v.ValueFrom.ConfigMapKeyRef.Name
	default:
		return jsonOf([]*corev1.EnvVarSource{v.ValueFrom})
	}
}

// initValues returns what shunt-init's arguments say, by flag; what they leave out
// has its default. It returns nil for those of a version that knows other flags.
func initValues(args []string) map[string]string {
	values := map[string]string{}
	settings := "--envoy="
	if len(args) > 0 && args[0] == interception.ShareCommand {
		values[flagOfMode] = string(interception.ModeNone)
		for _, arg := range args {
			if strings.HasPrefix(arg, settings) {
				settings = arg
			}
		}
		maps.Copy(values, settingsOf(strings.TrimPrefix(settings, "--envoy=")))
		return values
	}
	spec, opts, err := interception.ParseArgs(args)
	if err != nil {
		return nil
	}
	values = interception.Values(spec, opts)
	switch {
	case spec.DNS.Redirect && spec.DNS.All:
		values["dnsCapture"] = string(config.DNSCaptureAll)
	case spec.DNS.Redirect:
		values["dnsCapture"] = string(config.DNSCaptureResolvers)
	default:
		values["dnsCapture"] = string(config.DNSCaptureNone)
	}
	values[flagOfMode] = string(spec.Mode())
	values["interceptFrom"] = string(config.InterceptFromPod)
	if len(args) > 0 && args[0] == interception.GateCommand {
		values["interceptFrom"] = string(config.InterceptFromNode)
		delete(values, "backend") // the agent has its own
	}
	maps.Copy(values, settingsOf(opts.Envoy))
	return values
}

// settingsOf returns Envoy's settings, by "envoy" and their paths.
func settingsOf(text string) map[string]string {
	if text == "" {
		return nil
	}
	values := map[string]string{}
	settings, err := envoy.ParseSettings(text)
	if err != nil { // another version's
		values["envoy"] = text
		return values
	}
	for _, leaf := range config.Leaves(settings) {
		values["envoy."+leaf.Path] = leaf.Value
	}
	return values
}

// envoyValues returns the arguments of Envoy with their values, by flag.
func envoyValues(args []string) map[string]string {
	values := map[string]string{}
	for i, arg := range args {
		if !strings.HasPrefix(arg, "--") {
			continue
		}
		values[arg] = "true"
		if i+1 < len(args) && !strings.HasPrefix(args[i+1], "--") {
			values[arg] = args[i+1]
		}
	}
	return values
}

// status adds what the injector put elsewhere than into its containers.
func (c *changes) status(was, now podplan.Status) {
	c.add("revision", was.Revision, now.Revision)
	c.add("imagePullSecrets", strings.Join(was.ImagePullSecrets, ","), strings.Join(now.ImagePullSecrets, ","))
	c.add("prometheusAnnotations", scraped(was), scraped(now))
	c.add("volumes", strings.Join(was.Volumes, ","), strings.Join(now.Volumes, ","))
	c.add("probes", jsonOf(was.Probes), jsonOf(now.Probes))
}

func scraped(status podplan.Status) string {
	for key := range status.Annotations {
		if strings.HasPrefix(key, "prometheus.io/") {
			return "true"
		}
	}
	return "false"
}

func jsonOf[T any](values []T) string {
	if len(values) == 0 {
		return ""
	}
	text, err := json.Marshal(values)
	if err != nil {
		panic("the core API's types always marshal: " + err.Error())
	}
	return string(text)
}

// flagOfMode is shunt-init's flag for the mode.
const flagOfMode = "istio-inbound-interception-mode"

// settingNames are the settings of values by their paths in our containers and
// their arguments: fields of the configuration, or keys of annotations without such
// a field. What is empty follows from another setting.
var settingNames = map[string]string{
	"shunt-init image": "initImage", "shunt-proxy image": "proxyImage",
	"shunt-init imagePullPolicy": "pullPolicy", "shunt-proxy imagePullPolicy": "pullPolicy",

	"shunt-init " + flagOfMode: annotation.InterceptionModeKey, "shunt-init dnsCapture": "dnsCapture",
	"shunt-init interceptFrom": "interceptFrom", "shunt-init securityContext.runAsUser": "", "shunt-init securityContext.runAsGroup": "",
	"shunt-init securityContext.runAsNonRoot": "", "shunt-init securityContext.capabilities.add": "",
	"shunt-init redirect-dns": "", "shunt-init capture-all-dns": "", "shunt-init system": "", "shunt-init envoy": "",
	"shunt-init proxy-uid": "proxyUID", "shunt-init proxy-gid": "proxyGID",
	"shunt-init drop-invalid": "dropInvalid", "shunt-init backend": "backend",

	"shunt-init envoy.healthPort":                annotation.HealthPortKey,
	"shunt-init envoy.inboundHTTPPorts":          "protocolDetection, httpPorts (inbound)",
	"shunt-init envoy.outboundHTTPPorts":         "protocolDetection, httpPorts (outbound)",
	"shunt-init envoy.http.maxHeaderKB":          "httpLimits.maxHeaderKB",
	"shunt-init envoy.http.maxStreams":           "httpLimits.maxStreams",
	"shunt-init envoy.http.headerSeconds":        "httpLimits.headerTimeout",
	"shunt-init envoy.keepalive.timeSeconds":     "tcpKeepalive.time",
	"shunt-init envoy.keepalive.intervalSeconds": "tcpKeepalive.interval",
	"shunt-init envoy.keepalive.probes":          "tcpKeepalive.probes",
	"shunt-init envoy.memoryLimit":               "", // that of the container

	"shunt-proxy --concurrency": "concurrency", "shunt-proxy --log-level": "logLevel",
	"shunt-proxy --component-log-level": "componentLogLevel", "shunt-proxy --drain-time-s": "drainDuration",
	"shunt-proxy --drain-strategy": "", "shunt-proxy lifecycle.preStop.exec.command": "drainDuration",
	"shunt-proxy --config-yaml":          "", // the variable has the ConfigMap
	"shunt-proxy env.BOOTSTRAP_OVERRIDE": annotation.BootstrapOverrideKey,

	"shunt-proxy securityContext.runAsUser": "proxyUID", "shunt-proxy securityContext.runAsGroup": "proxyGID",
	"shunt-proxy readinessProbe.initialDelaySeconds": annotation.ReadinessInitialDelayKey,
	"shunt-proxy readinessProbe.periodSeconds":       annotation.ReadinessPeriodKey,
	"shunt-proxy readinessProbe.failureThreshold":    annotation.ReadinessFailuresKey,
}

// nameOf returns the name of a value at a path of a container.
func nameOf(container, path string) string {
	if name, known := settingNames[container+" "+path]; known {
		return name
	}
	if below, is := strings.CutPrefix(path, "resources."); is {
		return map[string]string{
			podplan.InitContainerName: "initResources.", podplan.ProxyContainerName: "proxyResources.",
		}[container] + below
	}
	if below, is := strings.CutPrefix(path, "envoy."); is {
		return below // such as accessLog, by its own name
	}
	if container == podplan.InitContainerName {
		for _, row := range annotation.Table() {
			if row.Flag == path {
				return cmp.Or(row.Field, row.Key)
			}
		}
	}
	return container + " " + path
}
