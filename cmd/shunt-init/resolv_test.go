//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/kernel"
)

func TestNameservers(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "[]",
		"search a.b\noptions ndots:5\n": "[]",
		"nameserver\n":                  "[]",
		"nameserver 10.0.0.10\n":        "[10.0.0.10]",
		"# nameserver 10.0.0.9\nnameserver fd00::a # why\nnameserver\t10.0.0.10": "[fd00::a 10.0.0.10]",
		"nameserver 10.0.0.10\nnameserver 10.0.0.10\n":                           "[10.0.0.10]",
		"nameserver ::ffff:10.0.0.10\nnameserver 10.0.0.10\n":                    "[10.0.0.10]",
		"nameserver fe80::1%eth0\n":                                              "[fe80::1%eth0]",
	} {
		got, err := nameservers(text)
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%q: %v, error %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"nameserver dns.example\n", "nameserver 10.0.0.10:53\n", "nameserver fe80::1%\"\n"} {
		if got, err := nameservers(text); err == nil {
			t.Errorf("%q was taken as %v", text, got)
		}
	}
}

func TestPrefixesOf(t *testing.T) {
	servers := []netip.Addr{
		netip.MustParseAddr("fe80::1%eth1"), netip.MustParseAddr("10.0.0.10"), netip.MustParseAddr("fe80::1%eth0"),
	}
	if got := prefixesOf(servers).String(); got != "10.0.0.10/32,fe80::1/128" {
		t.Errorf("prefixes %s", got)
	}
	if got := prefixesOf(nil); got != nil {
		t.Errorf("no servers are %v", got)
	}
}

// TestNotThePodsResolvConf: what is at hand of another network namespace is
// its path, not its pod's files.
func TestNotThePodsResolvConf(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--netns=/none --redirect-dns", "--redirect-dns: with --netns"},
		{"--netns=/none --share=/none", "--share: with --netns"},
		{"--netns=/none --share=/none --redirect-dns --capture-all-dns", "--dns-servers, without --capture-all-dns"},
	} {
		err := run(context.Background(), strings.Fields(c.args), &strings.Builder{})
		if exitCode(err) != exitArguments || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "accepted") {
			t.Errorf("%s: %v, want %q", c.args, err, c.want)
		}
	}
	// With servers given, the folder is the first thing to be missed.
	args := "--netns=/none --share=/none --redirect-dns --dns-servers=10.0.0.10"
	err := run(context.Background(), strings.Fields(args), &strings.Builder{})
	if !errors.Is(err, kernel.ErrPreflight) || !strings.Contains(err.Error(), "--share /none") {
		t.Errorf("%v, want it to be about the folder", err)
	}
}
