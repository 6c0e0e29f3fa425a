//go:build linux

package rules

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// settings are those of a namespace's sysctls that decide where a packet with a
// mark, from lo, or for an address of lo goes. A pod takes them from its node's
// or from securityContext.sysctls; wg-quick sets the first.
var settings = []string{
	"net/ipv4/conf/*/src_valid_mark=1",
	"net/ipv4/conf/*/src_valid_mark=1 net/ipv4/conf/*/rp_filter=1",
	"net/ipv4/tcp_fwmark_accept=1",
	"net/ipv4/conf/*/src_valid_mark=1 net/ipv4/tcp_fwmark_accept=1 net/ipv4/fwmark_reflect=1 net/ipv6/fwmark_reflect=1",
	"net/ipv4/fwmark_reflect=1 net/ipv6/fwmark_reflect=1",
	"net/ipv4/conf/*/rp_filter=0",
	"net/ipv4/conf/*/rp_filter=2",
	"net/ipv4/conf/*/accept_local=1",
	"net/ipv4/conf/*/route_localnet=1",
	"net/ipv4/ip_early_demux=0 net/ipv4/tcp_early_demux=0",
	"net/ipv4/ip_nonlocal_bind=1 net/ipv6/ip_nonlocal_bind=1",
	"net/ipv4/ip_forward=1 net/ipv6/conf/all/forwarding=1",
	"net/ipv4/tcp_syncookies=0 net/ipv4/tcp_timestamps=0",
	"net/netfilter/nf_conntrack_tcp_loose=0",
}

// set writes sysctls; a * stands for every interface that there is, and those
// to come.
func set(t *testing.T, ns *netns.NS, settings string) {
	t.Helper()
	for _, setting := range strings.Fields(settings) {
		key, value, _ := strings.Cut(setting, "=")
		for _, device := range []string{"all", "default", "lo", "eth0"} {
			err := ns.Sysctl(strings.Replace(key, "*", device, 1), value)
			if errors.Is(err, fs.ErrNotExist) {
				t.Skipf("this kernel lacks %s", key)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestSettings sends every kind of connection through pods whose settings are
// other than the kernel's: whatever shunt-init calls verified has to work.
func TestSettings(t *testing.T) {
	netns.Require(t, "iptables-nft")
	bin := buildShuntInit(t)
	proxies := map[string]proxyIdentity{
		"marks":     {Identity: netns.Identity{UID: 1337, GID: 1337}},
		"marks not": {Identity: netns.Identity{UID: 0, GID: 1337}, unmarked: true},
	}
	for _, values := range settings {
		for _, system := range []interception.System{interception.SystemRedirect, interception.SystemTProxy} {
			for name, id := range proxies {
				if system == interception.SystemRedirect && id.unmarked {
					continue // no proxy marks anything there
				}
				spec := interception.Default()
				spec.System = system
				t.Run(values+"/"+string(spec.Mode())+"/"+name, func(t *testing.T) {
					t.Parallel()
					newTraffic(t, spec, id, func(t *testing.T, pod *netns.NS) {
						set(t, pod, values)
						run(t, pod, bin, istioArguments(spec.Mode())...)
					}).run(t)
				})
			}
		}
	}
}

// TestSettingsOfOtherSystems sends the packets of cases of the systems that have
// no transparent proxy in these tests.
func TestSettingsOfOtherSystems(t *testing.T) {
	netns.Require(t, "iptables-nft")
	cases := 0
	for _, c := range corpus(t) {
		if c.Name != "ambient-defaults" && c.Name != "ambient-inbound-hop" && c.Name != "legacy-defaults" {
			continue
		}
		cases++
		spec, opts, err := c.Spec()
		if err != nil {
			t.Fatal(err)
		}
		for _, values := range settings {
			t.Run(values+"/"+c.Name, func(t *testing.T) {
				t.Parallel()
				a := newArena(t, spec, c.Packets, func(pod *netns.NS) {
					set(t, pod, values)
					apply(t, pod, spec, opts)
				})
				for _, x := range c.Packets {
					if err := a.cross(t.Context(), x); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	if cases != 3 {
		t.Errorf("%d cases, want 3", cases)
	}
}

// TestSettingRefused holds that what cannot work is said before anything is touched.
func TestSettingRefused(t *testing.T) {
	netns.Require(t, "iptables-nft", "ip")
	bin, pod := buildShuntInit(t), quietLab(t).Pod
	set(t, pod, "net/ipv4/tcp_syncookies=2")
	before := wholeOf(t, pod)
	code, said := attempt(t, pod, bin, "-m", "TPROXY")
	if code != exitPreflight || !strings.Contains(said, "net.ipv4.tcp_syncookies is 2; accepted with system tproxy: 0, 1") {
		t.Errorf("exit code %d: %s", code, said)
	}
	if diff := cmp.Diff(before, wholeOf(t, pod)); diff != "" {
		t.Errorf("refused, but (-before +after):\n%s", diff)
	}
	run(t, pod, bin, "-m", "REDIRECT") // which it does not matter to
}
