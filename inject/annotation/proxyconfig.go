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

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/config"
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

// unsupportedFields are the other fields of Istio's ProxyConfig, each with the reason
// why Shunt does not act on it.
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

// ProxyConfig is what Shunt takes from a ProxyConfig; the zero value what it
// says nothing of.
type ProxyConfig struct {
	concurrency *int32
	Drain       time.Duration
	hold        *bool
	unsupported []string // names of fields on which Shunt does not act
	unknown     []string // and of those that Istio does not have either
	dnsCapture  bool     // whether Istio's agent is asked to capture DNS
}

// longestProxyConfig is far more than one has that says each field. To read YAML
// takes longer than all else that a pod can have.
const longestProxyConfig = 32 << 10

// parseProxyConfig reads YAML. A field that nobody knows is warned about, as are
// those on which Shunt does not act: Istio of another version may have it.
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
		if wrong := read.take(name, fields); wrong != nil {
			found.Add(wrong)
		}
	}
	if err := found.Inside(); err != nil {
		return ProxyConfig{}, err
	}
	return read, nil
}

// take reads one of the fields, and returns what words its fault.
func (c *ProxyConfig) take(name string, fields map[string]any) func() *field.Error {
	value := fields[name]
	invalid := func(accepted string) func() *field.Error {
		return func() *field.Error {
			return field.Invalid(field.NewPath(strict.Shorten(name)), brief(value), "accepted: "+accepted)
		}
	}
	switch name {
	case configConcurrency:
		n, is := value.(float64)
		if !is || n != math.Trunc(n) || n < 0 || n > config.MaxConcurrency {
			return invalid(config.AcceptedConcurrency)
		}
		c.concurrency = new(int32(n))
	case configDrain, configTermination:
		text, _ := value.(string)
		d, err := config.ParseDuration(text)
		if err != nil {
			return invalid(config.AcceptedDuration)
		}
		if _, both := fields[configTermination]; !both || name == configTermination {
			c.Drain = d
		}
	case configHold:
		hold, is := value.(bool)
		if !is {
			return invalid(acceptedTruth)
		}
		c.hold = &hold
	default:
		if unsupportedFields[name] == "" {
			c.unknown = append(c.unknown, name)
			return nil
		}
		c.unsupported = append(c.unsupported, name)
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

func knownFields() []string {
	return append([]string{configConcurrency, configDrain, configHold, configTermination}, slices.Sorted(maps.Keys(unsupportedFields))...)
}

// SetByProxyConfig reports whether a ProxyConfig sets a field of the injector's
// configuration.
func (r *Request) SetByProxyConfig(field string) bool {
	switch field {
	case configConcurrency:
		return r.ProxyConfig.concurrency != nil
	case configDrain:
		return r.ProxyConfig.Drain != 0
	case configHold:
		return r.ProxyConfig.hold != nil
	default:
		return false
	}
}

// ConfigWarnings tells of fields of a ProxyConfig on which Shunt does not act.
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
		if i < strict.MostTold { // the others are only counted
			meant, _, _ = strings.Cut(strict.UnknownField(name, knownFields()), "; ")
			meant = strings.Replace(strings.TrimPrefix(meant, "unknown field"), ", ", "; ", 1)
		}
		warn(strict.Shorten(name), "unknown field, on which Shunt does not act"+meant)
	}
	return warnings
}
