//go:build linux

package rules

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/initimage/trace"
	"github.com/shunt-dev/shunt/test/netns"
)

// TestKernelJourney opens every kind of connection through our rules and through the listings of
// others, with a proxy of every identity. The rules that the journey names have counted packets, and
// no other rule of nat has; the app sees the address that it says, and what it calls a loop is one.
func TestKernelJourney(t *testing.T) {
	netns.Require(t, "iptables-nft", "ip")
	t.Parallel()
	for system, proxies := range identities {
		for name, id := range proxies {
			spec := interception.DefaultFor(system)
			if id.bound {
				continue // to lo: what a journey takes a proxy to do is not that
			}
			sets := map[ruleset.Family]ruleset.RuleSet{}
			listed := map[ruleset.Family]ruleset.RuleSet{}
			for _, family := range ruleset.Families {
				sets[family] = ruleset.Build(spec, family)
				set, err := (Listing{Name: string(system)}).Read("testdata/listings", family)
				if err != nil {
					t.Fatal(err)
				}
				set.Routing.Addresses = sets[family].Routing.Addresses
				listed[family] = set
			}
			t.Run(string(system)+"/"+name, func(t *testing.T) {
				t.Parallel()
				walkAndGo(t, spec, id, sets)
			})
			t.Run("listing-"+string(system)+"/"+name, func(t *testing.T) {
				t.Parallel()
				walkAndGo(t, spec, id, listed)
			})
		}
	}
}

// walkAndGo compares the journey of each kind of connection with the connection.
func walkAndGo(t *testing.T, spec interception.Spec, id proxyIdentity, sets map[ruleset.Family]ruleset.RuleSet) {
	pod := trace.Pod{Proxy: trace.ProxyOf(spec)}
	pod.Proxy.UID, pod.Proxy.GID = id.UID, id.GID
	if id.unmarked {
		pod.Proxy.Mark = 0
	}
	for _, family := range ruleset.Families {
		set := sets[family]
		pod.Sides = append(pod.Sides, trace.Side{Family: family, Host: Pod, Sets: []ruleset.RuleSet{set}, Routing: set.Routing})
	}
	tr := newTraffic(t, spec, id, func(t *testing.T, ns *netns.NS) { restore(t, ns, sets) })
	for _, k := range kinds {
		for name, family := range map[string]ruleset.Family{"v4": ruleset.IPv4, "v6": ruleset.IPv6} {
			t.Run(k.name+" "+name, func(t *testing.T) {
				journey := trace.Walk(pod, connectionOf(k, name, family, pod.Proxy))
				zero(t, tr.lab.Pod, family)
				tr.proxy.take()
				reply, err := tr.open(t, k, name)
				seen := tr.proxy.take()
				if !ended(journey.End, reply, err, seen) {
					t.Fatalf("the journey: %+v; got %v, %+v; the proxy saw %v", journey.End, err, reply, seen)
				}
				if slices.ContainsFunc(seen, func(c crossing) bool { return c.err != nil }) {
					return // the proxy gave up before the journey's end
				}
				names, has := namedBy(&journey), counted(t, tr.lab.Pod, family)
				missing := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(has, name) })
				// Other tables than nat also count the last packets of the connection before.
				unnamed := slices.DeleteFunc(slices.Clone(has), func(name string) bool {
					return slices.Contains(names, name) || !strings.HasPrefix(name, "nat ")
				})
				if len(missing)+len(unnamed) > 0 {
					t.Errorf("rules of the journey that counted nothing: %q\nrules that counted packets of another way: %q\n%+v",
						missing, unnamed, journey.End)
				}
			})
		}
	}
}

// ended reports whether a connection ended as its journey says.
func ended(end trace.End, reply netns.Reply, err error, seen []crossing) bool {
	switch end.Kind {
	case trace.EndLoop:
		// A proxy behind TPROXY reads its socket's own address, and so gives up where REDIRECT brought
		// the connection; Envoy goes on.
		gaveUp := len(seen) > 0 && seen[len(seen)-1].err != nil
		return err != nil && (len(seen) >= maxCrossings || gaveUp)
	case trace.EndLost:
		return err != nil
	case trace.EndApp, trace.EndOutside:
		return err == nil && len(seen) < 2 && end.Proxied == (len(seen) == 1) && reply.Remote.Addr() == end.Sees
	}
	return false
}

func connectionOf(k kind, name string, family ruleset.Family, proxy trace.Proxy) trace.Connection {
	to := k.destination(name)
	packet := ruleset.Packet{
		Direction: ruleset.Out, Family: family, Protocol: k.network, Dst: to.Addr(), DstPort: to.Port(), State: ruleset.New,
		UID: k.from.UID, GID: k.from.GID,
	}
	switch {
	case k.outside:
		packet.Direction, packet.Src, packet.Interface = ruleset.In, Client[family], Pod.Uplink
		return trace.Connection{From: trace.Outside, Packet: packet}
	case k.proxy:
		return trace.FromProxy(proxy, packet)
	}
	return trace.Connection{From: trace.App, Packet: packet}
}

// namedBy returns the rules that a journey names.
func namedBy(journey *trace.Journey) []string {
	var names []string
	for _, leg := range journey.Legs {
		for _, step := range leg.Path.Steps {
			names = append(names, fmt.Sprintf("%s %s %d", step.Table, step.Chain, step.Number))
		}
	}
	return names
}

// tool is a program of iptables for a family.
func tool(family ruleset.Family, name string) string {
	return map[ruleset.Family]string{ruleset.IPv4: "iptables-nft", ruleset.IPv6: "ip6tables-nft"}[family] + name
}

// restore puts rule sets and their routing into a namespace, without package kernel.
func restore(t *testing.T, ns *netns.NS, sets map[ruleset.Family]ruleset.RuleSet) {
	t.Helper()
	for family, set := range sets {
		file := filepath.Join(t.TempDir(), "rules")
		if err := os.WriteFile(file, []byte(set.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, ns, tool(family, "-restore"), file)
		for line := range strings.Lines(set.String()) {
			if command, is := strings.CutPrefix(line, "# ip "); is {
				run(t, ns, "ip", strings.Fields(command)...)
			}
		}
	}
}

func zero(t *testing.T, ns *netns.NS, family ruleset.Family) {
	t.Helper()
	for _, table := range []string{"raw", "mangle", "nat", "filter"} {
		run(t, ns, tool(family, ""), "-t", table, "-Z")
	}
}

// counted returns the rules that have counted packets.
func counted(t *testing.T, ns *netns.NS, family ruleset.Family) []string {
	t.Helper()
	var names []string
	table, numbers := "", map[string]int{}
	for line := range strings.Lines(run(t, ns, tool(family, "-save"), "-c")) {
		words := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "*"):
			table = strings.TrimSpace(line[1:])
			clear(numbers)
		case len(words) > 2 && words[1] == "-A":
			chain := words[2]
			if numbers[chain]++; !strings.HasPrefix(words[0], "[0:") {
				names = append(names, fmt.Sprintf("%s %s %d", table, chain, numbers[chain]))
			}
		}
	}
	slices.Sort(names)
	return names
}
