package proxy

import (
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	envoyconfig "github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/inject/annotation"
	"github.com/shunt-dev/shunt/test/container"
	"github.com/shunt-dev/shunt/test/netns"
)

// movedHealth is the health port of the pods here.
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

func overriding() map[string]string {
	return map[string]string{annotation.BootstrapOverrideKey: "more", annotation.HealthPortKey: strconv.Itoa(movedHealth)}
}

// startOverridden starts a pod with a text in its ConfigMap.
func startOverridden(t *testing.T, injected *corev1.Pod, text string) *pod {
	t.Helper()
	p, err := startPodOn(t, injected, container.Node{
		Programs:   map[string]string{envoy: envoyBinary(t)},
		ConfigMaps: map[string]map[string]string{"more": {"custom_bootstrap.json": text}},
	}, resolverIPv4)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestBootstrapOverride checks that a pod's own bootstrap is merged into Shunt's, that its values
// win, and that the health port can move.
func TestBootstrapOverride(t *testing.T) {
	t.Parallel()
	injected := newPod(t, interception.ModeRedirect, overriding(), nil)
	p := startOverridden(t, injected, `{
		"stats_flush_interval": "7s",
		"node": {"metadata": {"team": "shop"}},
		"static_resources": {"clusters": [`+cluster("zipkin")+`], "listeners": [`+listener("mine", 18888)+`]}}`)
	inside, outside := client(dialer(p.Pod.Dial)), client(fromOutside(p.Lab))
	for _, pod := range []netip.Addr{netns.PodIPv4, netns.PodIPv6} {
		if status, body := get(outside, pod, movedHealth, envoyconfig.HealthPath); status != http.StatusOK {
			t.Errorf("health on %s: status %d %s, want 200", pod, status, body)
		}
	}
	for path, want := range map[string]string{
		"/clusters": "zipkin::", "/listeners": "mine::127.0.0.1:18888", "/server_info": `"team": "shop"`,
		"/config_dump": `"stats_flush_interval": "7s"`,
	} {
		if _, body := get(inside, netip.MustParseAddr("127.0.0.1"), interception.AdminPort, path); !strings.Contains(body, want) {
			t.Errorf("%s does not say %s: %.2000s", path, want, body)
		}
	}
}

// TestBootstrapOverrideOfSharedNames checks that Envoy rejects two clusters of one name. Of two
// listeners of one name it uses the first, Shunt's: the pod cannot replace it.
func TestBootstrapOverrideOfSharedNames(t *testing.T) {
	t.Parallel()
	out, err := validate(t, bootstrapText(interception.ModeRedirect),
		"--config-yaml", `{"static_resources": {"clusters": [`+cluster("PassthroughCluster")+`]}}`)
	if err == nil || !strings.Contains(out, "duplicate cluster 'PassthroughCluster'") {
		t.Errorf("two clusters of one name: %v\n%s", err, out)
	}

	for _, name := range []string{"virtualInbound", "virtualOutbound"} {
		injected := newPod(t, interception.ModeRedirect, overriding(), nil)
		p := startOverridden(t, injected, `{"static_resources": {"listeners": [`+listener(name, 18888)+`]}}`)
		if status, _ := get(client(fromOutside(p.Lab)), netns.PodIPv4, movedHealth, envoyconfig.HealthPath); status != http.StatusOK {
			t.Errorf("another %s: status %d, want 200", name, status)
		}
		_, listeners := get(client(dialer(p.Pod.Dial)), netip.MustParseAddr("127.0.0.1"), interception.AdminPort, "/listeners")
		if strings.Contains(listeners, "18888") || !strings.Contains(listeners, name+"::0.0.0.0:150") {
			t.Errorf("another %s: Envoy has the listeners\n%s", name, listeners)
		}
	}
}
