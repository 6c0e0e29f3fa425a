package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/shunt-dev/shunt/test/netns"
)

// TestProbe checks that a port is open if the app listens on an address that kubelet can reach,
// whether or not the pod has others.
func TestProbe(t *testing.T) {
	netns.Require(t)
	lab, err := netns.NewLab()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lab.Close() })
	for _, at := range []netip.AddrPort{
		netip.AddrPortFrom(netip.IPv6Unspecified(), 8080),
		netip.AddrPortFrom(netns.PodIPv4, 8081),
		netip.AddrPortFrom(netns.PodIPv6, 8082),
		netip.MustParseAddrPort("127.0.0.1:8083"),
		netip.MustParseAddrPort("[::1]:8084"),
	} {
		server, err := lab.Pod.Listen("tcp", at, netns.ListenOptions{Name: "app"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = server.Close() })
	}
	for port, code := range map[string]int{
		"8080": exitDone, "8081": exitDone, "8082": exitDone,
		"8083": exitUnreachable, "8084": exitUnreachable, "8085": exitUnreachable,
	} {
		if got, said := probePod(t, lab, port); got != code {
			t.Errorf("port %s: exit code %d, want %d\n%s", port, got, code, said)
		}
	}
}

// TestProbeOfAnAddressThatSwallows checks that the address after one under duplicate address
// detection is tried as well. During the detection, and for good if it fails, nobody answers
// packets for that address.
func TestProbeOfAnAddressThatSwallows(t *testing.T) {
	netns.Require(t)
	lab, err := netns.NewLab("net1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lab.Close() })
	// 255 solicitations of each kind, one a second, outlast the test.
	for key, value := range map[string]string{
		"conf/eth0/accept_dad": "1", "conf/eth0/dad_transmits": "255", "neigh/eth0/mcast_solicit": "255",
	} {
		if err := lab.Pod.Sysctl("net/ipv6/"+key, value); err != nil {
			t.Fatal(err)
		}
	}
	eth0, err := lab.Pod.Netlink().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	tentative := &net.IPNet{IP: net.ParseIP("fd00::2"), Mask: net.CIDRMask(64, 128)}
	if err := lab.Pod.Netlink().AddrAdd(eth0, &netlink.Addr{IPNet: tentative}); err != nil {
		t.Fatal(err)
	}
	server, err := lab.Pod.Listen("tcp", netip.MustParseAddrPort("10.1.0.1:8080"), netns.ListenOptions{Name: "app"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	if got, said := probePod(t, lab, "8080"); got != exitDone {
		t.Errorf("exit code %d\n%s", got, said)
	}
}

// probePod probes a port of the lab's pod, from a process there.
func probePod(t *testing.T, lab *netns.Lab, port string) (code int, said []byte) {
	t.Helper()
	// No test waits for this time to pass.
	cmd := lab.Pod.Command(t.Context(), os.Args[0], "probe", "--port", port, "--timeout=20s")
	cmd.Env = append(os.Environ(), "SHUNT_INIT_TEST=1")
	said, err := cmd.CombinedOutput()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), said
}

func TestProbeRefusesWrongArguments(t *testing.T) {
	for args, want := range map[string]string{
		"": `--port: invalid value ""`, "--port=0": `"0"`,
		"--port=http": `"http"`, "--port=80 --timeout=0s": `--timeout: invalid value "0s"`,
		"--port=80 --timeout=1": `"1"`, "--port=80 now": `"now"`, "--host=a": "--host",
	} {
		err := run(context.Background(), append([]string{"probe"}, strings.Fields(args)...), &strings.Builder{})
		if exitCode(err) != exitArguments || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "accepted: ") {
			t.Errorf("%q: %v, want it to say %s and what is accepted", args, err, want)
		}
	}
}
