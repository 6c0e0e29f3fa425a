package proxy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	envoyconfig "github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
)

// TestEnvoyAcceptsEveryBootstrap lets Envoy itself check the bootstrap of every mode, with every
// setting that changes its shape.
func TestEnvoyAcceptsEveryBootstrap(t *testing.T) {
	t.Parallel()
	resolvers := filepath.Join(t.TempDir(), envoyconfig.ResolversFile)
	if err := os.WriteFile(resolvers, []byte(`{"resources": []}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range modes {
		for _, ipv6 := range []bool{true, false} {
			for name, change := range map[string]func(*envoyconfig.Settings, *interception.Spec){
				"bytes":   func(*envoyconfig.Settings, *interception.Spec) {},
				"bounded": func(s *envoyconfig.Settings, _ *interception.Spec) { s.MemoryLimit, s.HealthPort = 1<<30, 8888 },
				"no log":  func(s *envoyconfig.Settings, _ *interception.Spec) { s.AccessLog = envoyconfig.AccessLogNone },
				"marked":  func(_ *envoyconfig.Settings, spec *interception.Spec) { spec.NoConntrack = true },
				"DNS":     func(_ *envoyconfig.Settings, spec *interception.Spec) { spec.DNS.Redirect = true },
				"declared": func(s *envoyconfig.Settings, _ *interception.Spec) {
					s.InboundHTTPPorts, s.MemoryLimit = "80,8080-8090", 1<<30
				},
				"all": func(s *envoyconfig.Settings, _ *interception.Spec) {
					s.InboundHTTPPorts, s.OutboundHTTPPorts = envoyconfig.AllPorts, envoyconfig.AllPorts
					s.AccessLog, s.AccessLogQueries = envoyconfig.AccessLogErrors, false
				},
			} {
				t.Run(fmt.Sprintf("%s %s IPv6=%t", mode, name, ipv6), func(t *testing.T) {
					t.Parallel()
					settings, spec := envoyconfig.DefaultSettings(), interception.Default()
					change(&settings, &spec)
					text := string(envoyconfig.Bootstrap(mode, spec, settings, envoyconfig.Host{IPv6: ipv6, BindToLoopback: ipv6}))
					out, err := validate(t, strings.ReplaceAll(text, envoyconfig.SharedDirectory+"/"+envoyconfig.ResolversFile, resolvers))
					if err != nil {
						t.Fatalf("envoy --mode validate: %v\n%s", err, out)
					}
					checkWarnings(t, out)
				})
			}
		}
	}
}

// TestEnvoyRejectsNonsense shows that the test above can fail.
func TestEnvoyRejectsNonsense(t *testing.T) {
	t.Parallel()
	wrong := strings.Replace(bootstrapText(interception.ModeRedirect), "ORIGINAL_DST", "ORIGINAL_DESTINATION", 1)
	if out, err := validate(t, wrong); err == nil {
		t.Errorf("envoy accepts an unknown type of cluster:\n%s", out)
	}
}

// bootstrapText returns the bootstrap of a mode with default settings.
func bootstrapText(mode interception.Mode) string {
	return string(envoyconfig.Bootstrap(mode, interception.Default(), envoyconfig.DefaultSettings(),
		envoyconfig.Host{IPv6: true, BindToLoopback: true}))
}

// validate lets Envoy check a bootstrap.
func validate(t *testing.T, text string, more ...string) (output string, err error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), envoyconfig.BootstrapFile)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{
		"--mode", "validate", "--service-cluster", "shunt-proxy", "--service-node", "echo", "--config-path", file,
	}, more...)
	out, err := exec.CommandContext(t.Context(), envoyBinary(t), args...).CombinedOutput()
	return string(out), err
}

// unfinished are fields that Envoy calls work in progress, and that tests show to work. The UDP
// proxy's other way to name a cluster is deprecated, and nothing else lets unknown methods pass.
var unfinished = []string{
	"'envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig.matcher'",
	"'envoy.config.core.v3.Http1ProtocolOptions.allow_custom_methods'",
}

// checkWarnings finds what Envoy will soon reject.
func checkWarnings(t *testing.T, out string) {
	t.Helper()
	for line := range strings.Lines(out) {
		warned := strings.Contains(line, "[warning]") || strings.Contains(line, "eprecated")
		if warned && !slices.ContainsFunc(unfinished, func(field string) bool { return strings.Contains(line, field) }) {
			t.Errorf("envoy warns: %s", line)
		}
	}
}
