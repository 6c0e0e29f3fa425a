package main

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/test/netns"
)

// TestProbe: a port is open when the app listens on an address that kubelet
// can reach, whether or not the pod has others.
func TestProbe(t *testing.T) {
	netns.Require(t)
	lab, err := netns.NewLab()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lab.Close() })
	ask := func(port string) error {
		var err error
		if e := lab.Pod.Do(func() error {
			err = run(context.Background(), []string{"probe", "--port", port, "--timeout=2s"}, &strings.Builder{})
			return nil
		}); e != nil {
			t.Fatal(e)
		}
		return err
	}
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
		if err := ask(port); exitCode(err) != code {
			t.Errorf("port %s: %v, exit code %d, want %d", port, err, exitCode(err), code)
		}
	}
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
