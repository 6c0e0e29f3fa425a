package proxy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/bootstrap"
)

// TestEnvoyAcceptsTheCommandLine has Envoy itself check every bootstrap that
// the injector can write.
func TestEnvoyAcceptsTheCommandLine(t *testing.T) {
	envoy := envoyBinary(t)
	for _, mode := range modes {
		for _, families := range allFamilies {
			t.Run(fmt.Sprint(mode, families), func(t *testing.T) {
				args := append(commandLine(sidecar(t, mode, families)), "--mode", "validate")
				out, err := exec.CommandContext(t.Context(), envoy, args...).CombinedOutput()
				if err != nil {
					t.Fatalf("envoy --mode validate: %v\n%s", err, out)
				}
				checkWarnings(t, string(out))
			})
		}
	}
}

// TestEnvoyRefusesNonsense shows that the test above can fail.
func TestEnvoyRefusesNonsense(t *testing.T) {
	envoy := envoyBinary(t)
	args := commandLine(sidecar(t, modes[0], allFamilies[0]))
	for i, arg := range args {
		args[i] = strings.Replace(arg, `"ORIGINAL_DST"`, `"ORIGINAL_DESTINATION"`, 1)
	}
	args = append(args, "--mode", "validate")
	if out, err := exec.CommandContext(t.Context(), envoy, args...).CombinedOutput(); err == nil {
		t.Errorf("envoy accepts an unknown type of cluster:\n%s", out)
	}
}

// TestEnvoyAcceptsEveryBootstrap has Envoy check the bootstrap of every
// combination of options.
func TestEnvoyAcceptsEveryBootstrap(t *testing.T) {
	envoy := envoyBinary(t)
	resolvers := filepath.Join(t.TempDir(), "resolvers.json")
	if err := os.WriteFile(resolvers, []byte(`{"resources": []}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, opts := range everyOptions() {
		t.Run(fmt.Sprintf("%s IPv4=%t IPv6=%t detection=%t server-first=%q DNS=%d all=%t health=%d", opts.Mode, opts.IPv4, opts.IPv6,
			opts.ProtocolDetection, opts.ServerFirstPorts, opts.DNSPort, opts.DNSAllInterfaces, opts.HealthPort), func(t *testing.T) {
			t.Parallel()
			text, err := bootstrap.Text(opts)
			if err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), envoy, "--mode", "validate", "--service-cluster", "shunt-proxy", "--service-node",
				"echo", "--config-yaml", strings.ReplaceAll(text, bootstrap.ResolversFile, resolvers)).CombinedOutput()
			if err != nil {
				t.Fatalf("envoy --mode validate: %v\n%s", err, out)
			}
			checkWarnings(t, string(out))
		})
	}
}

func everyOptions() []bootstrap.Options {
	all := []bootstrap.Options{bootstrap.DefaultOptions()}
	vary := func(ways ...func(*bootstrap.Options)) {
		var varied []bootstrap.Options
		for _, opts := range all {
			for _, way := range ways {
				next := opts
				way(&next)
				varied = append(varied, next)
			}
		}
		all = varied
	}
	var byMode []func(*bootstrap.Options)
	for _, mode := range modes {
		byMode = append(byMode, func(o *bootstrap.Options) { o.Mode = mode })
	}
	vary(byMode...)
	vary(func(*bootstrap.Options) {},
		func(o *bootstrap.Options) { o.IPv6 = false },
		func(o *bootstrap.Options) { o.IPv4 = false })
	vary(func(*bootstrap.Options) {},
		func(o *bootstrap.Options) { o.ServerFirstPorts = "" },
		func(o *bootstrap.Options) { o.ServerFirstPorts = "25" },
		func(o *bootstrap.Options) { o.ProtocolDetection = false })
	vary(func(*bootstrap.Options) {},
		func(o *bootstrap.Options) { o.DNSPort = interception.DefaultDNSPort },
		func(o *bootstrap.Options) { o.DNSPort, o.DNSAllInterfaces = interception.DefaultDNSPort, true },
		func(o *bootstrap.Options) { o.HealthPort = 8888 })
	return all
}

// checkWarnings finds what Envoy will soon refuse. Of the UDP proxy's two ways
// to name a cluster, one is deprecated and the other not yet finished.
func checkWarnings(t *testing.T, out string) {
	t.Helper()
	for line := range strings.Lines(out) {
		warned := strings.Contains(line, "[warning]") || strings.Contains(line, "eprecated")
		if warned && !strings.Contains(line, "'envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig.matcher'") {
			t.Errorf("envoy warns: %s", line)
		}
	}
}
