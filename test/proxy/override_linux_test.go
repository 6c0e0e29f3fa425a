package proxy

import (
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject"
	"github.com/shunt-dev/shunt/inject/bootstrap"
	"github.com/shunt-dev/shunt/test/netns"
)

// movedHealth is where the pods here answer for their health.
const movedHealth = 8888

// cluster and listener are parts of a bootstrap of a pod's own.
func cluster(name string) string {
	return `{"name": "` + name + `", "type": "STATIC", "load_assignment": {"cluster_name": "` + name + `", "endpoints": [{"lb_endpoints": [
		{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9411}}}}]}]}}`
}

func listener(name string, port int) string {
	return `{"name": "` + name + `", "address": {"socket_address": {"address": "127.0.0.1", "port_value": ` + strconv.Itoa(port) + `}},
		"filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": {
			"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
			"stat_prefix": "mine", "cluster": "PassthroughCluster"}}]}]}`
}

// overrideFile writes what the ConfigMap holds, and returns its folder.
func overrideFile(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "custom_bootstrap.json"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func overriding() map[string]string {
	return map[string]string{inject.BootstrapOverrideKey: "more", inject.HealthPortKey: strconv.Itoa(movedHealth)}
}

// TestBootstrapOverride: a pod's own bootstrap adds to Shunt's and takes
// nothing from it, and the health port is where the pod wants it.
func TestBootstrapOverride(t *testing.T) {
	dir := overrideFile(t, `{
		"admin": {"address": {"socket_address": {"address": "0.0.0.0", "port_value": 19999}}},
		"node": {"metadata": {"team": "shop"}},
		"static_resources": {"clusters": [`+cluster("zipkin")+`], "listeners": [`+listener("mine", 18888)+`]}}`)
	injected := newPod(t, interception.ModeRedirect, overriding(), nil)
	p := startPod(t, injected, map[string]string{envoy: envoyBinary(t)}, map[string]string{"shunt-bootstrap": dir})
	inside, outside := client(dialer(p.Pod.Dial)), client(fromOutside(p.Lab))
	loopback := netip.MustParseAddr("127.0.0.1")
	for _, pod := range []netip.Addr{netns.PodIPv4, netns.PodIPv6} {
		if status, body := get(outside, pod, movedHealth, bootstrap.HealthPath); status != http.StatusOK {
			t.Errorf("health on %s: status %d %s, want 200", pod, status, body)
		}
	}
	for path, want := range map[string]string{
		"/clusters": "zipkin::", "/listeners": "mine::127.0.0.1:18888", "/server_info": `"team": "shop"`,
	} {
		if _, body := get(inside, loopback, interception.AdminPort, path); !strings.Contains(body, want) {
			t.Errorf("%s does not say %s: %.2000s", path, want, body)
		}
	}
	if connection, err := p.Pod.Dial(t.Context(), "tcp", netip.AddrPortFrom(loopback, 19999), netns.DialOptions{}); err == nil {
		connection.Close()
		t.Error("the administration interface is where the pod's bootstrap has it, and not on loopback alone")
	}
}

// TestBootstrapOverrideOfSharedNames: two clusters of one name are refused. A
// listener that has the name of one of Shunt's takes its place, and a proxy
// that intercepts with another listener never becomes healthy, so that its pod
// does not start.
func TestBootstrapOverrideOfSharedNames(t *testing.T) {
	sidecar := sidecar(t, interception.ModeRedirect, allFamilies[0])
	args := append([]string{
		"--config-path",
		filepath.Join(overrideFile(t, `{"static_resources": {"clusters": [`+cluster("PassthroughCluster")+`]}}`), "custom_bootstrap.json"),
		"--mode", "validate",
	}, commandLine(sidecar)...)
	out, err := exec.CommandContext(t.Context(), envoyBinary(t), args...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "duplicate cluster 'PassthroughCluster'") {
		t.Errorf("two clusters of one name: %v\n%s", err, out)
	}

	for _, name := range []string{"virtualInbound", "virtualOutbound"} {
		injected := newPod(t, interception.ModeRedirect, overriding(), nil)
		initContainer(t, injected, inject.ProxyContainerName).StartupProbe = nil // which would not pass
		dir := overrideFile(t, `{"static_resources": {"listeners": [`+listener(name, 18888)+`]}}`)
		p := startPod(t, injected, map[string]string{envoy: envoyBinary(t)}, map[string]string{"shunt-bootstrap": dir})
		outside, status := client(fromOutside(p.Lab)), 0
		for deadline := time.Now().Add(20 * time.Second); status == 0 && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			status, _ = get(outside, netns.PodIPv4, movedHealth, bootstrap.HealthPath)
		}
		if status != http.StatusServiceUnavailable {
			t.Errorf("another %s: status %d, want 503", name, status)
		}
	}
}
