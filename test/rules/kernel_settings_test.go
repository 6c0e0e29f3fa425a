//go:build linux

package rules

import (
	"errors"
	"io/fs"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// settings are the sysctls of a namespace that decide where a packet with a mark, from lo, or for
// an address of lo goes. A pod inherits them from its node or sets them by securityContext.sysctls;
// wg-quick sets the first.
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

// setSysctls writes sysctls; a * stands for every interface, also later ones.
func setSysctls(t *testing.T, ns *netns.NS, settings string) {
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

// TestSettings sends every kind of connection through pods with unusual sysctls: what shunt-init
// verifies has to work.
func TestSettings(t *testing.T) {
	netns.Require(t, "iptables-nft")
	t.Parallel()
	bin := buildShuntInit(t)
	proxies := map[string]proxyIdentity{
		"marks":     {Identity: netns.Identity{UID: 1337, GID: 1337}},
		"marks not": {Identity: netns.Identity{UID: 0, GID: 1337}, unmarked: true},
	}
	for _, values := range settings {
		for _, system := range []interception.System{interception.SystemRedirect, interception.SystemTProxy} {
			for name, id := range proxies {
				if system == interception.SystemRedirect && id.unmarked {
					continue // no proxy sets a mark there
				}
				spec := interception.Default()
				spec.System = system
				t.Run(values+"/"+string(spec.Mode())+"/"+name, func(t *testing.T) {
					t.Parallel()
					newTraffic(t, spec, id, func(t *testing.T, pod *netns.NS) {
						setSysctls(t, pod, values)
						run(t, pod, bin, istioArguments(spec.Mode())...)
					}).run(t)
				})
			}
		}
	}
}

// TestSettingsOfOtherSystems sends the packets of cases of the systems without a transparent proxy
// in these tests.
func TestSettingsOfOtherSystems(t *testing.T) {
	netns.Require(t, "iptables-nft")
	t.Parallel()
	cases := 0
	for _, test := range corpus(t) {
		if test.Name != "ambient-defaults" && test.Name != "ambient-inbound-hop" && test.Name != "legacy-defaults" {
			continue
		}
		cases++
		spec, opts, err := test.Spec()
		if err != nil {
			t.Fatal(err)
		}
		for _, values := range settings {
			t.Run(values+"/"+test.Name, func(t *testing.T) {
				t.Parallel()
				a := newArena(t, spec, test.Packets, func(pod *netns.NS) {
					setSysctls(t, pod, values)
					apply(t, pod, spec, opts)
				})
				for _, x := range test.Packets {
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

// TestUnsupportedSetting checks that what cannot work is reported before anything is touched.
func TestUnsupportedSetting(t *testing.T) {
	netns.Require(t, "iptables-nft", "ip")
	t.Parallel()
	bin, pod := buildShuntInit(t), quietLab(t).Pod
	setSysctls(t, pod, "net/ipv4/tcp_syncookies=2")
	before := wholeOf(t, pod)
	code, said := attempt(t, pod, bin, "-m", "TPROXY")
	if code != exitPreflight || !strings.Contains(said, "net.ipv4.tcp_syncookies is 2; accepted with system tproxy: 0, 1") {
		t.Errorf("exit code %d: %s", code, said)
	}
	if diff := cmp.Diff(before, wholeOf(t, pod)); diff != "" {
		t.Errorf("refused, but (-before +after):\n%s", diff)
	}
	run(t, pod, bin, "-m", "REDIRECT") // it works with this system
}

// TestAddressOnLoopback puts the pod's addresses on lo alone, as some routed networks do:
// shunt-init must report where REDIRECT would drop what comes in.
func TestAddressOnLoopback(t *testing.T) {
	netns.Require(t, "iptables-nft", "ip")
	t.Parallel()
	bin := buildShuntInit(t)
	moved := lines(
		"ip addr del 10.0.0.1/32 dev eth0", "ip addr add 10.0.0.1/32 dev lo", "ip addr del fd00::1/128 dev eth0",
		"ip addr add fd00::1/128 dev lo", "ip route replace default via 169.254.1.1 dev eth0 onlink src 10.0.0.1")
	pod := quietLab(t).Pod
	moved(t, pod)
	for _, system := range []string{"-m REDIRECT", "--system=ambient", "--system=legacy"} {
		code, said := attempt(t, pod, bin, strings.Fields(system)...)
		if code != exitPreflight || !strings.Contains(said, "interface eth0 has no IPv4 address") {
			t.Errorf("%s: exit code %d: %s", system, code, said)
		}
	}
	spec := interception.Default()
	spec.System = interception.SystemTProxy
	id := proxyIdentity{Identity: netns.Identity{UID: 1337, GID: 1337}}
	newTraffic(t, spec, id, func(t *testing.T, pod *netns.NS) {
		moved(t, pod)
		run(t, pod, bin, istioArguments(spec.Mode())...)
	}).run(t)
}

// TestLinkLocal checks connections between neighbours' link-local addresses: the pod's own are not
// intercepted; inbound ones go to the proxy like all others, or get no answer.
func TestLinkLocal(t *testing.T) {
	netns.Require(t, "iptables-nft", "ip")
	t.Parallel()
	bin := buildShuntInit(t)
	const port = 8080
	for _, text := range []string{
		"-m REDIRECT", "-m TPROXY", "--system=ambient", "--system=legacy", "-m REDIRECT --redirect-dns --capture-all-dns",
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			spec, _, err := interception.ParseArgs(strings.Fields(text))
			if err != nil {
				t.Fatal(err)
			}
			lab := quietLab(t)
			run(t, lab.Pod, bin, strings.Fields(text)...)
			p := startProxy(t, lab.Pod, spec, proxyIdentity{Identity: netns.Identity{UID: 1337, GID: 1337}})
			listenBoth(t, lab.Pod, "tcp", port, netns.ListenOptions{Name: serverApp, Identity: app})
			for _, network := range []string{"tcp", "udp"} {
				for _, number := range []uint16{port, 53} {
					listenBoth(t, lab.Outside, network, number, netns.ListenOptions{Name: serverOutside})
					to := netip.AddrPortFrom(linkLocalOf(t, lab.Outside), number)
					reply, err := lab.Pod.Ask(t.Context(), network, to, netns.DialOptions{Identity: app})
					if err != nil || reply.Server != serverOutside || len(p.take()) > 0 {
						t.Errorf("the app to %s %s: %+v, %v", network, to, reply, err)
					}
				}
			}
			own := netip.AddrPortFrom(linkLocalOf(t, lab.Pod), port)
			reply, err := lab.Pod.Ask(t.Context(), "tcp", own, netns.DialOptions{Identity: app})
			if err != nil || reply.Server != serverApp {
				t.Errorf("the app to itself: %+v, %v", reply, err)
			}
			p.take()
			reply, err = lab.Outside.Ask(t.Context(), "tcp", own, netns.DialOptions{Timeout: dropTime})
			if reply.Server == serverApp && len(p.take()) == 0 {
				t.Errorf("a neighbour got past the proxy: %+v, %v", reply, err)
			}
		})
	}
}

// linkLocalOf returns the link-local address of eth0, at either end of the link of that name.
func linkLocalOf(t *testing.T, ns *netns.NS) netip.Addr {
	t.Helper()
	link, err := ns.Netlink().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := ns.Netlink().AddrList(link, netlink.FAMILY_V6)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if a.IP.IsLinkLocalUnicast() {
			addr, _ := netip.AddrFromSlice(a.IP)
			return addr.WithZone("eth0")
		}
	}
	t.Fatal("eth0 has no link-local address")
	return netip.Addr{}
}
