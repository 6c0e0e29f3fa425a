//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
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

// TestServersInThePod checks that the proxy is not given a DNS server of the pod itself, whose own
// queries are captured.
func TestServersInThePod(t *testing.T) {
	own, err := ownAddresses(interception.DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"10.0.0.10":                      "[10.0.0.10]",
		"127.0.0.1 10.0.0.10 ::1":        "[10.0.0.10]",
		"127.0.0.53 0.0.0.0 ::":          "nameserver 127.0.0.53 is an address of the pod itself",
		"":                               "no nameserver for captured queries",
		"fd00::a fe80::1%eth0 127.0.0.1": "[fd00::a fe80::1%eth0]",
	} {
		var all []netip.Addr
		for _, word := range strings.Fields(text) {
			all = append(all, netip.MustParseAddr(word))
		}
		got, err := capturedResolvers(all, own, interception.DefaultOptions())
		if said := fmt.Sprint(got, err); !strings.Contains(said, want) {
			t.Errorf("%s: %s, want %s", text, said, want)
		}
	}
	for args, want := range map[string]string{
		"--share=/none --redirect-dns --dns-servers=10.0.0.10,127.0.0.1": "--dns-servers: 127.0.0.1 is an address of the pod itself",
		"--share=/none --redirect-dns --dns-servers=::1":                 "accepted: servers outside the pod",
	} {
		err := run(context.Background(), strings.Fields(args), &strings.Builder{})
		if exitCode(err) != exitArguments || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}

// TestNotThePodsResolvConf checks that --netns does not use the resolv.conf of this mount
// namespace, which is not the pod's.
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
	// With servers given, the folder is the first thing to be missing.
	args := "--netns=/proc/self/ns/net --share=/none --redirect-dns --dns-servers=10.0.0.10"
	err := run(context.Background(), strings.Fields(args), &strings.Builder{})
	if !errors.Is(err, kernel.ErrPreflight) || !strings.Contains(err.Error(), "--share /none") {
		t.Errorf("%v, want it to be about the folder", err)
	}
}
