//go:build linux

package rules

import (
	_ "embed"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shunt-dev/shunt/initimage/dump"
	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
	"github.com/shunt-dev/shunt/initimage/nft"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
	"github.com/shunt-dev/shunt/test/netns"
)

// TestDump reads back what the programs of a pod print of each case's rules, by each backend.
func TestDump(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy", "nft", "ip")
	t.Parallel()
	for _, backend := range backends {
		for _, c := range cases(t) {
			if c.Refused() || !c.TakenBy(backend) {
				continue
			}
			t.Run(string(backend)+"/"+c.Name, func(t *testing.T) {
				t.Parallel()
				spec, opts, err := c.Spec()
				if err != nil {
					t.Fatal(err)
				}
				opts.Backend = backend
				pod := newLab(t).Pod
				apply(t, pod, spec, opts)
				read := readDump(t, pod, dump.Script)
				compareProxies(t, read.Proxy, spec)
				for _, side := range read.Sides {
					if side.Family == ruleset.IPv6 && opts.IPv6 == interception.IPv6Off {
						continue
					}
					built := ruleset.Build(spec, side.Family)
					want := built
					if backend == interception.BackendNFTables {
						want = nft.Normal(built)
					}
					if len(side.Sets) == 0 {
						t.Fatalf("%s: no rules", side.Family)
					}
					got := side.Sets[0].Owned()
					got.Routing = side.Routing
					if diff := ruleset.Diff(want, got); diff != nil || side.Sets[0].Party != "" {
						t.Errorf("%s of %q: the dump differs from what was built: %q", side.Family, side.Sets[0].Party, diff)
					}
					if len(side.Unread) > 0 {
						t.Errorf("%s: unread: %q", side.Family, side.Unread)
					}
				}
			})
		}
	}
}

// compareProxies compares the proxy that rules show with the one that they were built for.
func compareProxies(t *testing.T, got trace.Proxy, spec interception.Spec) {
	t.Helper()
	want := trace.ProxyOf(spec)
	if spec.InboundPorts.String() == "" {
		want.Inbound, want.Transparent, want.Mark = got.Inbound, got.Transparent, got.Mark // no rule shows it
	}
	none := !spec.OutboundCIDRs.All && len(spec.OutboundCIDRs.Prefixes)+len(spec.OutboundPorts) == 0
	if nobody := !spec.OwnerGroups.All && len(spec.OwnerGroups.IDs) == 0; got.Outbound == 0 && (none || nobody) {
		want.Outbound = 0
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the proxy (-built for +read): %s", diff)
	}
}

// readDump runs a script in a pod and reads its output.
func readDump(t *testing.T, pod *netns.NS, script string) trace.Pod {
	t.Helper()
	text := run(t, pod, "sh", "-c", script)
	read, notes, err := dump.Read("pod", []dump.File{{Name: "dump.txt", Text: text}})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if len(notes) > 0 {
		t.Errorf("it assumed %q", notes)
	}
	return read
}

// zoo is a ruleset of nft with every expression that the reader knows.
//
//go:embed testdata/zoo.nft
var zoo string

// TestDumpOfOthers reads what the programs print of rules of others, and compares it with what
// package kernel reads of them.
func TestDumpOfOthers(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy", "nft", "ip")
	t.Parallel()
	for _, backend := range backends {
		t.Run(string(backend), func(t *testing.T) {
			t.Parallel()
			pod := newLab(t, secondInterface).Pod
			spec, opts, err := interception.ParseArgs(argumentsOn(backend, "-m TPROXY"))
			if err != nil {
				t.Fatal(err)
			}
			apply(t, pod, spec, opts)
			listen(t, pod, spec.InboundPort, interception.DefaultProxyUID)
			listen(t, pod, spec.OutboundPort, interception.DefaultProxyUID)
			cmd := pod.Command(t.Context(), "nft", "-f", "-")
			cmd.Stdin = strings.NewReader(zoo)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			compareWithKernel(t, "the zoo", pod, opts)
			run(t, pod, "nft", "delete", "table", "inet", "zoo")
			for line := range strings.Lines(changesOfOthers) {
				line = strings.TrimPrefix(strings.TrimSpace(line), "blocks ")
				if line == "" || strings.HasPrefix(line, "#") {
					continue
				}
				do, undo := commandsOf(line)
				run(t, pod, "sh", "-ec", do)
				compareWithKernel(t, line, pod, opts)
				run(t, pod, "sh", "-ec", undo)
			}
		})
	}
}

// listen has a process of some user listen on a port of a pod, as its proxy does.
func listen(t *testing.T, pod *netns.NS, port uint16, uid uint32) {
	t.Helper()
	at := netip.AddrPortFrom(netip.IPv6Unspecified(), port)
	listener, err := pod.ListenTCP(at, netns.ListenOptions{Identity: netns.Identity{UID: uid, GID: uid}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
}

// TestDumpOfListeners reads who listens where the rules send connections.
func TestDumpOfListeners(t *testing.T) {
	netns.Require(t, "nft")
	t.Parallel()
	pod := newLab(t).Pod
	spec, opts, err := interception.ParseArgs([]string{"--backend=nftables"})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, pod, spec, opts)
	notes := func() []string {
		var text strings.Builder
		if err := pod.Do(func() error { return kernel.Dump(t.Context(), &text) }); err != nil {
			t.Fatal(err)
		}
		_, notes, err := dump.Read("pod", []dump.File{{Name: "dump", Text: text.String()}})
		if err != nil {
			t.Fatal(err)
		}
		return notes
	}
	want := []string{
		"nothing listens on tcp port 15006, where the rules send connections: they are refused",
		"nothing listens on tcp port 15001, where the rules send connections: they are refused",
	}
	if diff := cmp.Diff(want, notes()); diff != "" {
		t.Errorf("nobody listens (-want +got):\n%s", diff)
	}
	listen(t, pod, 15006, interception.DefaultProxyUID)
	listen(t, pod, 15001, 101)
	want = []string{"what listens on tcp port 15001 has uid 101: the rules take its own connections for the app's, unless it has gid 1337"}
	if diff := cmp.Diff(want, notes()); diff != "" {
		t.Errorf("another user listens (-want +got):\n%s", diff)
	}
}

// compareWithKernel compares a pod's dump with what package kernel reads.
func compareWithKernel(t *testing.T, what string, pod *netns.NS, opts interception.Options) {
	t.Helper()
	compareSides(t, what, pod, opts, readDump(t, pod, dump.Script).Sides)
	var text strings.Builder
	if err := pod.Do(func() error { return kernel.Dump(t.Context(), &text) }); err != nil {
		t.Fatal(err)
	}
	read, notes, err := dump.Read("pod", []dump.File{{Name: "dump", Text: text.String()}})
	if err != nil || len(notes) > 0 {
		t.Fatalf("%q, %v\n%s", notes, err, &text)
	}
	compareSides(t, what+", by shunt-init dump", pod, opts, read.Sides)
}

// compareSides compares what was read of a pod with what package kernel reads.
func compareSides(t *testing.T, what string, pod *netns.NS, opts interception.Options, sides []trace.Side) {
	t.Helper()
	err := pod.Do(func() error {
		host, err := kernel.Open(t.Context(), opts)
		if err != nil {
			return err
		}
		defer host.Close()
		for _, side := range sides {
			if len(side.Unread) > 0 {
				t.Errorf("%s: %s: unread: %q", what, side.Family, side.Unread)
			}
			rules, err := host.Rules(t.Context(), side.Family)
			if err != nil {
				return err
			}
			others, err := host.Others(t.Context(), side.Family)
			if err != nil {
				return err
			}
			var want []ruleset.RuleSet
			for _, set := range append([]ruleset.RuleSet{rules}, others...) {
				if set.Party != "nftables" {
					set.Canonical()
				}
				want = append(want, set)
			}
			equal := cmp.Options{cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})}
			if diff := cmp.Diff(texts(want), texts(side.Sets)); diff != "" {
				t.Errorf("%s: %s (-kernel +dump):\n%s", what, side.Family, diff)
			}
			routing, err := host.Routing(side.Family)
			if err != nil {
				return err
			}
			if diff := cmp.Diff(routing, side.Routing, equal); diff != "" {
				t.Errorf("%s: %s routing (-kernel +dump):\n%s", what, side.Family, diff)
			}
			addresses, err := host.Addresses()
			if err != nil {
				return err
			}
			addresses.NoLocalnet = side.Host.NoLocalnet // nothing in the dump says it
			if diff := cmp.Diff(addresses, side.Host, equal); diff != "" {
				t.Errorf("%s: %s host (-kernel +dump):\n%s", what, side.Family, diff)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// texts prints rule sets without their routing, and where the kernel calls each native chain.
func texts(sets []ruleset.RuleSet) []string {
	var all []string
	for _, set := range sets {
		set.Routing = ruleset.Routing{}
		text := set.Party + "\n" + set.String()
		for _, table := range set.Tables {
			for _, c := range table.Chains {
				if c.Base != nil {
					text += fmt.Sprintf("%s %s %+v %s\n", table.Name, c.Name, *c.Base, c.Policy)
				}
			}
		}
		all = append(all, text)
	}
	return all
}
