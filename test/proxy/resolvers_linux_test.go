package proxy

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/test/netns"
)

// TestResolvers checks that shunt-init leaves a pod's resolvers for the proxy, and that the proxy
// reads them: at its start, and when a later run leaves others.
func TestResolvers(t *testing.T) {
	t.Parallel()
	envoy := envoyBinary(t)
	netns.Require(t, "iptables-nft")
	lab, err := netns.NewLab()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeLab(t, lab) })
	dir := t.TempDir()
	leave := func(program, servers string) {
		args := []string{"--share=" + dir, "--redirect-dns", "--dns-servers=" + servers}
		if out, err := lab.Pod.Command(t.Context(), program, args...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}

	leave(buildShuntInit(t), "10.0.0.53,fd00::53")
	configured(t, lab.Pod, envoy, fmt.Sprintf(`
node: {id: echo, cluster: demo}
admin: {address: {socket_address: {address: %q, port_value: %d}}}
static_resources:
  clusters:
  - name: dns
    type: EDS
    eds_cluster_config: {eds_config: {resource_api_version: V3, path_config_source: {path: %q}}}
`, adminAddress.Addr(), adminAddress.Port(), filepath.Join(dir, "resolvers.json")))
	hosts := func() []string {
		return hostsOf(get(client(lab.Pod.Dial), adminAddress.Addr(), adminAddress.Port(), "/clusters"))
	}
	if diff := cmp.Diff([]string{"10.0.0.53:53", "[fd00::53]:53"}, hosts()); diff != "" {
		t.Fatalf("hosts of the cluster (-want +got):\n%s", diff)
	}

	leave(filepath.Join(dir, "shunt-init"), "10.0.0.54")
	within(t, "the proxy has the other resolver", &output{}, func() bool { return slices.Equal(hosts(), []string{"10.0.0.54:53"}) })
}

// hostsOf returns the hosts of the cluster dns in Envoy's listing of clusters.
func hostsOf(_ int, listing string) []string {
	var hosts []string
	for line := range strings.Lines(listing) {
		line = strings.TrimPrefix(line, "dns::")
		if host, is := strings.CutSuffix(strings.TrimSpace(line), "::health_flags::healthy"); is {
			hosts = append(hosts, host)
		}
	}
	slices.Sort(hosts)
	return hosts
}
