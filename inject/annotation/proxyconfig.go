package annotation

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

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/config"
	"github.com/shunt-dev/shunt/inject/podplan"
	"github.com/shunt-dev/shunt/inject/strict"
)

// configMetadata is the field of Istio's ProxyConfig with the agent's settings.
const configMetadata = "proxyMetadata"

// Fields of Istio's ProxyConfig on which Shunt acts.
const (
	configConcurrency = "concurrency"
	configDrain       = "drainDuration"
	configTermination = "terminationDrainDuration"
	configHold        = "holdApplicationUntilProxyStarts"
	configStats       = "proxyStatsMatcher"
)

const acceptedProxyConfig = "a YAML mapping with fields of Istio's ProxyConfig, of which Shunt acts on " +
	configConcurrency + ", " + configTermination + ", " + configDrain + ", " + configHold + " and " + configStats

// unsupportedFields maps each other field of Istio's ProxyConfig to the reason why
// Shunt does not support it.
var unsupportedFields = map[string]string{
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

// byOverride is the reason for what Envoy can do and Shunt does not configure.
const byOverride = "Shunt's Envoy does without"

// ProxyConfig holds what Shunt reads from Istio's ProxyConfig. A zero value means
// that the field is not set.
type ProxyConfig struct {
	concurrency *int32
	Drain       time.Duration
	hold        *bool
	stats       *envoy.StatsMatcher
	unsupported []string // names of Istio's fields that Shunt does not support
	unknown     []string // names of fields that Istio does not have either
	dnsCapture  bool     // whether proxyMetadata turns on DNS capture in Istio's agent
}

// longestProxyConfig is a limit in bytes, far above a ProxyConfig that sets every
// field. Parsing YAML is the slowest part of reading a pod, hence the limit.
const longestProxyConfig = 32 << 10

// parseProxyConfig reads YAML. Unknown fields produce a warning, as unsupported
// ones do, and no error: another version of Istio may have them.
func parseProxyConfig(text string) (ProxyConfig, error) {
	if len(text) > longestProxyConfig {
		return ProxyConfig{}, &interception.ValueError{
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
		return ProxyConfig{}, &interception.ValueError{Value: text, Reason: err.Error(), Accepted: acceptedProxyConfig}
	}
	var read ProxyConfig
	var found strict.Faults
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		read.take(name, fields, &found)
	}
	if err := found.Inside(); err != nil {
		return ProxyConfig{}, err
	}
	return read, nil
}

// take reads one field, and adds what is wrong with it.
func (c *ProxyConfig) take(name string, fields map[string]any, found *strict.Faults) {
	value := fields[name]
	invalid := func(accepted string) {
		found.Add(func() *field.Error {
			return field.Invalid(field.NewPath(strict.Shorten(name)), brief(value), "accepted: "+accepted)
		})
	}
	switch name {
	case configConcurrency:
		if c.concurrency = readConcurrency(value); c.concurrency == nil {
			invalid(config.AcceptedConcurrency)
		}
	case configDrain, configTermination:
		text, _ := value.(string)
		drain, err := config.ParseDuration(text)
		if err != nil {
			invalid(config.AcceptedDuration)
			return
		}
		if _, both := fields[configTermination]; !both || name == configTermination {
			c.Drain = drain
		}
	case configHold:
		hold, isBool := value.(bool)
		if !isBool {
			invalid(acceptedTruth)
			return
		}
		c.hold = &hold
	case configStats:
		c.stats = readStatsMatcher(value, found)
	default:
		if unsupportedFields[name] == "" {
			c.unknown = append(c.unknown, name)
			return
		}
		c.unsupported = append(c.unsupported, name)
		if metadata, isMap := value.(map[string]any); isMap && name == configMetadata {
			c.dnsCapture = metadata["ISTIO_META_DNS_CAPTURE"] == "true"
		}
	}
}

// readConcurrency returns nil for what is no number of threads.
func readConcurrency(value any) *int32 {
	threads, isNumber := value.(float64)
	if !isNumber || threads != math.Trunc(threads) || threads < 0 || threads > config.MaxConcurrency {
		return nil
	}
	return new(int32(threads))
}

// readStatsMatcher reads three lists of texts. An unknown list is denied: a
// misspelt one would only show in metrics that are missing.
func readStatsMatcher(value any, found *strict.Faults) *envoy.StatsMatcher {
	path := field.NewPath(configStats)
	var read envoy.StatsMatcher
	lists := map[string]*[]string{
		"inclusionPrefixes": &read.Prefixes, "inclusionSuffixes": &read.Suffixes, "inclusionRegexps": &read.Regexps,
	}
	given, isObject := value.(map[string]any)
	if !isObject {
		found.Add(func() *field.Error {
			return field.Invalid(path, brief(value), "accepted: a mapping with "+strings.Join(strict.JSONNames[envoy.StatsMatcher](), ", "))
		})
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		list, known := lists[name]
		if !known {
			found.Add(func() *field.Error {
				return field.Forbidden(path.Child(strict.Shorten(name)), strict.UnknownField(name, strict.JSONNames[envoy.StatsMatcher]()))
			})
			continue
		}
		elements, isList := given[name].([]any)
		for _, element := range elements {
			text, isText := element.(string)
			isList = isList && isText
			*list = append(*list, text)
		}
		if !isList {
			found.Add(func() *field.Error {
				return field.Invalid(path.Child(name), brief(given[name]), "accepted: a list of texts")
			})
			*list = nil
		}
	}
	for _, wrong := range read.Validate() {
		found.Add(func() *field.Error { return config.PatternError(path, wrong) })
	}
	return &read
}

// brief shortens a value, so that the message with it stays readable.
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

// knownFields returns the names of all fields of Istio's ProxyConfig.
func knownFields() []string {
	return append([]string{configConcurrency, configDrain, configHold, configStats, configTermination},
		slices.Sorted(maps.Keys(unsupportedFields))...)
}

// SetByProxyConfig reports whether a ProxyConfig sets a field of the injector's
// configuration.
func (r *Request) SetByProxyConfig(field string) bool {
	switch top, _, _ := strings.Cut(field, "."); top {
	case configConcurrency:
		return r.ProxyConfig.concurrency != nil
	case configStats:
		return r.ProxyConfig.stats != nil
	case configDrain:
		return r.ProxyConfig.Drain != 0
	case configHold:
		return r.ProxyConfig.hold != nil
	default:
		return false
	}
}

// ConfigWarnings returns a warning for each field of a ProxyConfig that has no
// effect.
func ConfigWarnings(req Request, cfg config.Config) []string {
	var warnings []string
	warn := func(name, text string) {
		warnings = append(warnings, fmt.Sprintf("%s.%s: %s", req.Source.Path(ProxyConfigKey), name, text))
	}
	if cfg.Sidecar.Type == config.SidecarCustom {
		const forEnvoy = "it is for Envoy, and this injector's sidecar is another proxy"
		if req.ProxyConfig.concurrency != nil {
			warn(configConcurrency, forEnvoy)
		}
		if req.ProxyConfig.Drain != 0 {
			warn(configTermination, forEnvoy)
		}
		if req.ProxyConfig.stats != nil {
			warn(configStats, forEnvoy)
		}
	}
	for _, name := range req.ProxyConfig.unsupported {
		reason := unsupportedFields[name]
		if name == configMetadata && req.ProxyConfig.dnsCapture {
			reason += fmt.Sprintf("; what ISTIO_META_DNS_CAPTURE asks for is %s: %s", DNSCaptureKey, config.DNSCaptureResolvers)
		}
		warn(name, "Shunt does not act on this field: "+reason)
	}
	for i, name := range req.ProxyConfig.unknown {
		meant := ""
		if i < strict.MostTold { // the rest is only counted
			meant, _, _ = strings.Cut(strict.UnknownField(name, knownFields()), "; ")
			meant = strings.Replace(strings.TrimPrefix(meant, "unknown field"), ", ", "; ", 1)
		}
		warn(strict.Shorten(name), "unknown field, on which Shunt does not act"+meant)
	}
	return warnings
}
