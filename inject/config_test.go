package inject_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/config"
)

// configType begins every configuration.
const configType = "apiVersion: shunt.dev/v1alpha1\nkind: InjectorConfiguration\n"

// cmpPrefixes: netip.Prefix has unexported fields and is comparable.
var cmpPrefixes = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

func TestDefaultConfigIsValid(t *testing.T) {
	if errs := inject.ValidateConfig(config.Default()); len(errs) > 0 {
		t.Error(errs)
	}
	parsed, err := inject.ParseConfig([]byte(configType))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config.Default(), parsed); diff != "" {
		t.Errorf("a configuration that sets nothing is not the default (-default +parsed):\n%s", diff)
	}
}

func TestValidateNamesEachSetting(t *testing.T) {
	one := resource.MustParse("1")
	for field, spoil := range map[string]func(*config.Config){
		"initImage":                    func(c *config.Config) { c.InitImage = "" },
		"proxyImage":                   func(c *config.Config) { c.ProxyImage = "envoy:v1 --privileged" },
		"pullPolicy":                   func(c *config.Config) { c.PullPolicy = "" },
		"backend":                      func(c *config.Config) { c.Backend = "bpf" },
		"protocolDetection":            func(c *config.Config) { c.ProtocolDetection = "auto" },
		"httpPorts":                    func(c *config.Config) { c.HTTPPorts = "80" },
		"httpLimits.maxHeaderKB":       func(c *config.Config) { c.HTTPLimits.MaxHeaderKB = 8193 },
		"httpLimits.maxStreams":        func(c *config.Config) { c.HTTPLimits.MaxStreams = 0 },
		"httpLimits.headerTimeout":     func(c *config.Config) { c.HTTPLimits.HeaderTimeout.Duration = -time.Second },
		"accessLog":                    func(c *config.Config) { c.AccessLog = "some" },
		"tcpKeepalive.time":            func(c *config.Config) { c.TCPKeepalive.Time.Duration = 0 },
		"tcpKeepalive.interval":        func(c *config.Config) { c.TCPKeepalive.Interval.Duration = 10 * time.Hour },
		"tcpKeepalive.probes":          func(c *config.Config) { c.TCPKeepalive.Probes = 128 },
		"excludeOutboundIPRanges":      func(c *config.Config) { c.ExcludeOutboundIPRanges = "file:" },
		"proxyUID":                     func(c *config.Config) { c.ProxyUID = 0 },
		"proxyGID":                     func(c *config.Config) { c.ProxyGID = 1 << 31 },
		"initResources.limits[memory]": func(c *config.Config) { c.InitResources.Limits["memory"] = resource.MustParse("-1") },
		"proxyResources.requests[cpu]": func(c *config.Config) { c.ProxyResources.Limits["cpu"] = resource.MustParse("1m") },
		"concurrency":                  func(c *config.Config) { c.Concurrency = -1 },
		"logLevel":                     func(c *config.Config) { c.LogLevel = "verbose" },
		"defaultPolicy":                func(c *config.Config) { c.DefaultPolicy = "" },
		"revision":                     func(c *config.Config) { c.Revision = "a_b" },
	} {
		t.Run(field, func(t *testing.T) {
			cfg := config.Default()
			spoil(&cfg)
			errs := inject.ValidateConfig(cfg)
			if len(errs) == 0 {
				t.Fatal("accepted")
			}
			found := false
			for _, err := range errs {
				found = found || err.Field == field
			}
			if !found {
				t.Errorf("errors are %v, none about the field", errs)
			}
		})
	}
	unlimited := config.Default()
	unlimited.ProxyResources = corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": one}}
	if errs := inject.ValidateConfig(unlimited); len(errs) > 0 {
		t.Errorf("a request without a limit: %v", errs)
	}
}

// TestDefaultsDoNotShareTheirMaps: a caller may change what it got.
func TestDefaultsDoNotShareTheirMaps(t *testing.T) {
	changed := config.Default()
	changed.ProxyResources.Limits["cpu"] = resource.MustParse("7")
	if cpu := config.Default().ProxyResources.Limits["cpu"]; cpu.String() == "7" {
		t.Error("DefaultConfig hands out one map to all")
	}
}
