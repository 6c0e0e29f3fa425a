package config

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
)

const (
	// MaxConcurrency is the most worker threads of Envoy.
	MaxConcurrency = 1024
	// AcceptedConcurrency describes the accepted values of concurrency.
	AcceptedConcurrency = "a whole number from 1 to 1024, or 0 for all cores"
	// maxID is the largest runAsUser and runAsGroup that Kubernetes accepts.
	maxID = math.MaxInt32
	// Linux' limits (linux/tcp.h: MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL, MAX_TCP_KEEPCNT).
	maxKeepaliveSeconds = 32767
	maxKeepaliveProbes  = 127
	// maxHeaderKB is Envoy's limit, in KiB.
	maxHeaderKB      = 8192
	maxHeaderSeconds = 86400
)

// Validate returns an error for each invalid setting, with its path, its value and
// what is accepted.
func (c Config) Validate() field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, CheckImage(field.NewPath("initImage"), c.InitImage)...)
	errs = append(errs, CheckImage(field.NewPath("proxyImage"), c.ProxyImage)...)
	errs = append(errs, checkAllowedImages(field.NewPath("allowedProxyImages"), c.AllowedProxyImages)...)
	errs = append(errs, checkOneOf("pullPolicy", c.PullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)...)
	errs = append(errs, checkOneOf("backend", c.Backend, interception.Backends...)...)
	errs = append(errs, checkExcluded(c.ExcludeOutboundIPRanges)...)
	errs = append(errs, checkOneOf("interceptFrom", c.InterceptFrom, InterceptFromPod, InterceptFromNode)...)
	errs = append(errs, checkRange("proxyUID", c.ProxyUID, maxID)...)
	errs = append(errs, checkRange("proxyGID", c.ProxyGID, maxID)...)
	errs = append(errs, CheckResources(field.NewPath("initResources"), c.InitResources)...)
	errs = append(errs, CheckResources(field.NewPath("proxyResources"), c.ProxyResources)...)
	if c.Concurrency < 0 || c.Concurrency > MaxConcurrency {
		errs = append(errs, field.Invalid(field.NewPath("concurrency"), c.Concurrency, "accepted: "+AcceptedConcurrency))
	}
	errs = append(errs, checkOneOf("logLevel", c.LogLevel, LogLevels...)...)
	if c.ComponentLogLevel != "" {
		errs = append(errs, checkParsed("componentLogLevel", c.ComponentLogLevel, ParseComponentLogLevels)...)
	}
	errs = append(errs, checkOneOf("dnsCapture", c.DNSCapture, DNSCaptureNone, DNSCaptureResolvers, DNSCaptureAll)...)
	errs = append(errs, checkHTTP(c)...)
	errs = append(errs, checkOneOf("accessLog", c.AccessLog,
		envoy.AccessLogAll, envoy.AccessLogTraffic, envoy.AccessLogErrors, envoy.AccessLogNone)...)
	for _, wrong := range c.ProxyStatsMatcher.Validate() {
		errs = append(errs, PatternError(field.NewPath("proxyStatsMatcher"), wrong))
	}
	errs = append(errs, checkSeconds("tcpKeepalive.time", c.TCPKeepalive.Time, 1, maxKeepaliveSeconds)...)
	errs = append(errs, checkSeconds("tcpKeepalive.interval", c.TCPKeepalive.Interval, 1, maxKeepaliveSeconds)...)
	errs = append(errs, checkRange("tcpKeepalive.probes", int64(c.TCPKeepalive.Probes), maxKeepaliveProbes)...)
	errs = append(errs, checkParsed("drainDuration", c.DrainDuration.Duration.String(), ParseDuration)...)
	errs = append(errs, checkPortRange(field.NewPath("tproxyPortRange"), c.TProxyPortRange)...)
	errs = append(errs, checkOneOf("nativeSidecar", c.NativeSidecar, NativeSidecarAuto, NativeSidecarEnabled, NativeSidecarDisabled)...)
	errs = append(errs, checkPullSecrets(field.NewPath("imagePullSecrets"), c.ImagePullSecrets)...)
	errs = append(errs, checkOneOf("defaultPolicy", c.DefaultPolicy, PolicyEnabled, PolicyDisabled)...)
	errs = append(errs, checkSelectors("alwaysInjectSelector", c.AlwaysInjectSelector)...)
	errs = append(errs, checkSelectors("neverInjectSelector", c.NeverInjectSelector)...)
	for _, wrong := range validation.IsDNS1123Label(c.Revision) {
		errs = append(errs, field.Invalid(field.NewPath("revision"), c.Revision, wrong))
	}
	return errs
}

// PatternError returns an error of a StatsMatcher at the path.
func PatternError(path *field.Path, wrong envoy.PatternError) *field.Error {
	detail := "accepted: " + wrong.Accepted
	if wrong.Reason != "" {
		detail = wrong.Reason + "; " + detail
	}
	return field.Invalid(path.Child(wrong.Field), wrong.Value, detail)
}

func checkHTTP(c Config) field.ErrorList {
	errs := checkOneOf("protocolDetection", c.ProtocolDetection,
		ProtocolDetectionNone, ProtocolDetectionDeclared, ProtocolDetectionAll)
	wrong := checkParsed("httpPorts", c.HTTPPorts, interception.ParsePortRanges)
	if len(wrong) == 0 && c.HTTPPorts != "" && c.ProtocolDetection != ProtocolDetectionDeclared {
		wrong = field.ErrorList{field.Invalid(field.NewPath("httpPorts"), c.HTTPPorts,
			"nothing reads it; accepted: with protocolDetection: declared")}
	}
	errs = append(errs, wrong...)
	errs = append(errs, checkRange("httpLimits.maxHeaderKB", int64(c.HTTPLimits.MaxHeaderKB), maxHeaderKB)...)
	errs = append(errs, checkRange("httpLimits.maxStreams", int64(c.HTTPLimits.MaxStreams), math.MaxInt32)...)
	return append(errs, checkSeconds("httpLimits.headerTimeout", c.HTTPLimits.HeaderTimeout, 0, maxHeaderSeconds)...)
}

// checkSeconds returns an error for a time that is not from least to most seconds.
func checkSeconds(name string, value metav1.Duration, least, most int) field.ErrorList {
	from, to := time.Duration(least)*time.Second, time.Duration(most)*time.Second
	if from <= value.Duration && value.Duration <= to {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath(name), value.Duration.String(), fmt.Sprintf("accepted: %s to %s", from, to))}
}

// CheckImage returns an error for a text that cannot be an image reference.
func CheckImage(path *field.Path, image string) field.ErrorList {
	printable := func(r rune) bool { return r > ' ' && r < 0x7f }
	if image != "" && strings.IndexFunc(image, func(r rune) bool { return !printable(r) }) < 0 {
		return nil
	}
	return field.ErrorList{field.Invalid(path, image, "accepted: an image reference such as shunt-init:v1")}
}

func checkOneOf[T ~string](name string, value T, accepted ...T) field.ErrorList {
	if slices.Contains(accepted, value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(field.NewPath(name), value, accepted)}
}

// checkParsed returns the error of a parser that also reads annotations, as an error
// of the configuration.
func checkParsed[T any](name, text string, parse func(string) (T, error)) field.ErrorList {
	_, err := parse(text)
	var wrong *interception.ValueError
	if !errors.As(err, &wrong) {
		return nil
	}
	detail := "accepted: " + wrong.Accepted
	if wrong.Reason != "" {
		detail = wrong.Reason + "; " + detail
	}
	if wrong.Value != text {
		detail = fmt.Sprintf("%q: %s", wrong.Value, detail)
	}
	return field.ErrorList{field.Invalid(field.NewPath(name), text, detail)}
}

// checkRange returns an error for a number that is not from 1 to most.
func checkRange(name string, value, most int64) field.ErrorList {
	if 1 <= value && value <= most {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath(name), value, fmt.Sprintf("accepted: 1 to %d", most))}
}

// CheckResources returns an error for each request above its limit and for each
// negative quantity.
func CheckResources(path *field.Path, resources corev1.ResourceRequirements) field.ErrorList {
	var errs field.ErrorList
	for resourceName, request := range resources.Requests {
		limit, limited := resources.Limits[resourceName]
		if limited && request.Cmp(limit) > 0 {
			errs = append(errs, field.Invalid(path.Child("requests").Key(string(resourceName)), request.String(),
				"accepted: at most the limit, "+limit.String()))
		}
	}
	for kind, list := range map[string]corev1.ResourceList{"requests": resources.Requests, "limits": resources.Limits} {
		for resourceName, quantity := range list {
			if quantity.Sign() < 0 {
				errs = append(errs, field.Invalid(path.Child(kind).Key(string(resourceName)), quantity.String(), "accepted: 0 or more"))
			}
		}
	}
	slices.SortFunc(errs, func(a, b *field.Error) int { return strings.Compare(a.Field, b.Field) })
	return errs
}

// checkPullSecrets returns an error for each invalid or duplicate name of a Secret.
func checkPullSecrets(path *field.Path, secrets []corev1.LocalObjectReference) field.ErrorList {
	var errs field.ErrorList
	for i, secret := range secrets {
		name := path.Index(i).Child("name")
		for _, wrong := range validation.IsDNS1123Subdomain(secret.Name) {
			errs = append(errs, field.Invalid(name, secret.Name, "accepted: "+wrong))
		}
		if slices.Contains(secrets[:i], secret) {
			errs = append(errs, field.Duplicate(name, secret.Name))
		}
	}
	return errs
}
