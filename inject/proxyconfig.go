package inject

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/strict"
)

// configMetadata are the settings of Istio's agent, in Istio's ProxyConfig.
const configMetadata = "proxyMetadata"

// Fields of Istio's ProxyConfig on which Shunt acts.
const (
	configConcurrency = "concurrency"
	configDrain       = "drainDuration"
	configTermination = "terminationDrainDuration"
	configHold        = "holdApplicationUntilProxyStarts"
)

const acceptedProxyConfig = "a YAML mapping with fields of Istio's ProxyConfig, of which Shunt acts on " +
	configConcurrency + ", " + configTermination + ", " + configDrain + " and " + configHold

// idleConfig are the other fields of Istio's ProxyConfig, each with the reason
// why Shunt does not act on it.
var idleConfig = map[string]string{
	"availabilityZone":           ofControlPlane,
	"binaryPath":                 ofAgent,
	"caCertificatesPem":          ofControlPlane,
	"configPath":                 ofAgent,
	"connectionSettings":         byOverride,
	"controlPlaneAuthPolicy":     ofControlPlane,
	"customConfigFile":           byOverride,
	"discoveryAddress":           ofControlPlane,
	"discoveryRefreshDelay":      ofControlPlane,
	"envoyAccessLogService":      byOverride,
	"envoyMetricsService":        byOverride,
	"envoyMetricsServiceAddress": byOverride,
	"extraStatTags":              ofStatistics,
	"fileFlushInterval":          "Envoy's access log is flushed every second",
	"fileFlushMinSizeKb":         "Envoy's access log is flushed every second",
	"gatewayTopology":            ofControlPlane,
	"image":                      "the image is that of the injector's configuration, or of " + ProxyImageKey,
	"interceptionMode":           "it is set by " + InterceptionModeKey,
	"meshId":                     ofControlPlane,
	"privateKeyProvider":         ofControlPlane,
	"proxyAdminPort":             "Envoy's administration interface is on port 15000",
	"proxyBootstrapTemplatePath": ofAgent,
	"proxyHeaders":               "Shunt's Envoy passes headers on as they are",
	configMetadata:               ofAgent,
	"proxyStatsMatcher":          ofStatistics,
	"readinessProbe":             "it is for machines outside a cluster",
	"runtimeValues":              byOverride,
	"sds":                        ofControlPlane,
	"serviceCluster":             "Envoy's is " + podplan.ProxyContainerName,
	"statNameLength":             ofStatistics,
	"statsCompression":           ofStatistics,
	"statsdUdpAddress":           byOverride,
	"statusPort":                 "it is set by " + HealthPortKey,
	"tracing":                    byOverride,
	"tracingServiceName":         byOverride,
	"zipkinAddress":              byOverride,
}

// byOverride is the reason for what a bootstrap can have, and Shunt's has not.
const byOverride = "Shunt's Envoy does without"

// proxyConfig is what Shunt takes from a ProxyConfig; the zero value what it
// says nothing of.
type proxyConfig struct {
	concurrency *int32
	drain       time.Duration
	hold        *bool
	idle        []string // names of fields on which Shunt does not act
	unknown     []string // and of those that Istio does not have either
	dnsCapture  bool     // whether Istio's agent is asked to capture DNS
}

// longestProxyConfig is far more than one has that says each field. To read YAML
// takes longer than all else that a pod can have.
const longestProxyConfig = 32 << 10

// parseProxyConfig reads YAML. A field that nobody knows is warned about, as are
// those on which Shunt does not act: Istio of another version may have it.
func parseProxyConfig(text string) (proxyConfig, error) {
	if len(text) > longestProxyConfig {
		return proxyConfig{}, &interception.ValueError{
			Value: text, Reason: fmt.Sprintf("it is longer than %d bytes", longestProxyConfig), Accepted: acceptedProxyConfig,
		}
	}
	raw, err := strict.ReadDocument([]byte(text), "a mapping")
	var fields map[string]any
	if err == nil {
		err = json.Unmarshal(raw, &fields)
	}
	if err == nil && fields == nil {
		err = errors.New("there is no mapping")
	}
	if err != nil {
		return proxyConfig{}, &interception.ValueError{Value: text, Reason: err.Error(), Accepted: acceptedProxyConfig}
	}
	var read proxyConfig
	var found strict.Faults
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if wrong := read.take(name, fields); wrong != nil {
			found.Add(wrong)
		}
	}
	if err := found.Inside(); err != nil {
		return proxyConfig{}, err
	}
	return read, nil
}

// take reads one of the fields, and returns what words its fault.
func (c *proxyConfig) take(name string, fields map[string]any) func() *field.Error {
	value := fields[name]
	invalid := func(accepted string) func() *field.Error {
		return func() *field.Error {
			return field.Invalid(field.NewPath(strict.Shorten(name)), brief(value), "accepted: "+accepted)
		}
	}
	switch name {
	case configConcurrency:
		n, is := value.(float64)
		if !is || n != math.Trunc(n) || n < 0 || n > maxConcurrency {
			return invalid(acceptedConcurrency)
		}
		c.concurrency = new(int32(n))
	case configDrain, configTermination:
		text, _ := value.(string)
		d, err := parseDuration(text)
		if err != nil {
			return invalid(acceptedDuration)
		}
		if _, both := fields[configTermination]; !both || name == configTermination {
			c.drain = d
		}
	case configHold:
		hold, is := value.(bool)
		if !is {
			return invalid(acceptedTruth)
		}
		c.hold = &hold
	default:
		if idleConfig[name] == "" {
			c.unknown = append(c.unknown, name)
			return nil
		}
		c.idle = append(c.idle, name)
		if metadata, is := value.(map[string]any); is && name == configMetadata {
			c.dnsCapture = metadata["ISTIO_META_DNS_CAPTURE"] == "true"
		}
	}
	return nil
}

// brief keeps a message readable that has a value in it.
func brief(value any) any {
	switch value := value.(type) {
	case nil, bool, float64:
		return value
	case string:
		return strict.Shorten(value)
	default:
		return strict.Shorten(fmt.Sprint(value))
	}
}

func knownConfig() []string {
	return append([]string{configConcurrency, configDrain, configHold, configTermination}, slices.Sorted(maps.Keys(idleConfig))...)
}

// problems are what is wrong with a value of the row's key.
func (a Annotation) problems(place Place, text string, err error) []problem {
	var inside *strict.InsideError
	if !errors.As(err, &inside) {
		return []problem{{key: a.Key, place: place, err: a.refuse(place, text, err)}}
	}
	all := make([]problem, len(inside.Told))
	for i, wrong := range inside.Told {
		placed := *wrong
		if !strings.HasPrefix(placed.Field, "[") { // of a list
			placed.Field = "." + placed.Field
		}
		placed.Field = paths[place].Key(a.Key).String() + placed.Field
		all[i] = problem{key: a.Key, place: place, err: &placed}
	}
	all[len(all)-1].more = inside.More
	return all
}

// combineConfig has a ProxyConfig count where no key of its own says the same
// thing, or where that key is the namespace's and the ProxyConfig the pod's.
func (r *request) combineConfig() {
	r.drainKey = DrainDurationKey
	if r.byConfig(configConcurrency) {
		r.concurrency = r.config.concurrency
	}
	if r.byConfig(configDrain) {
		r.drain, r.drainKey = r.config.drain, ProxyConfigKey
	}
}

// byConfig reports whether it is the ProxyConfig that sets a field of the
// injector's configuration.
func (r *request) byConfig(field string) bool {
	counts := func(key string) bool {
		return !r.from.has(key) || r.from.ofNamespace(key) && !r.from.ofNamespace(ProxyConfigKey)
	}
	switch field {
	case configConcurrency:
		return r.config.concurrency != nil && counts(ConcurrencyKey)
	case configDrain:
		return r.config.drain != 0 && counts(DrainDurationKey)
	case configHold:
		return r.config.hold != nil
	default:
		return false
	}
}

// configWarnings tells of fields of a ProxyConfig on which Shunt does not act.
func configWarnings(req request, cfg Config) []string {
	var warnings []string
	warn := func(name, text string) {
		warnings = append(warnings, fmt.Sprintf("%s.%s: %s", req.from.path(ProxyConfigKey), name, text))
	}
	if cfg.Sidecar.Type == SidecarCustom {
		const forEnvoy = "it is for Envoy, and this injector's sidecar is another proxy"
		if req.config.concurrency != nil {
			warn(configConcurrency, forEnvoy)
		}
		if req.config.drain != 0 {
			warn(configTermination, forEnvoy)
		}
	}
	for _, name := range req.config.idle {
		reason := idleConfig[name]
		if name == configMetadata && req.config.dnsCapture {
			reason += fmt.Sprintf("; what ISTIO_META_DNS_CAPTURE asks for is %s: %s", DNSCaptureKey, DNSCaptureResolvers)
		}
		warn(name, "Shunt does not act on this field: "+reason)
	}
	for i, name := range req.config.unknown {
		meant := ""
		if i < strict.MostTold { // the others are only counted
			meant, _, _ = strings.Cut(strict.UnknownField(name, knownConfig()), "; ")
			meant = strings.Replace(strings.TrimPrefix(meant, "unknown field"), ", ", "; ", 1)
		}
		warn(strict.Shorten(name), "unknown field, on which Shunt does not act"+meant)
	}
	return warnings
}
