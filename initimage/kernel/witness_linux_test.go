package kernel_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/test/netns"
)

// unseen are the rules that Witness does not miss, by how their comments begin: those of connections that
// come in, which no process can make here without a privilege; those of the proxy's own; those that leave
// something alone; and the conntrack zones of DNS, without which a query gets to the proxy as well.
var unseen = []string{
	"connections to the pod", "every other inbound port", "to the inbound listener", "nobody listens there",
	"inbound ports left alone", "the tunnel port", "ssh, left alone",
	"inbound hop of the proxy", "remember the inbound hop", "answers to the inbound hop", "the proxy (", "connections of the proxy itself",
	"connections over loopback", "the pod talks to itself", "loopback destination", "unroutable destination", "a neighbour's",
	"answers of the proxy to the app", "answers of DNS servers to the proxy", "query of the proxy", "query of the app",
}

// TestWitnessMissesRules deletes each rule in turn, and every part of the routing.
func TestWitnessMissesRules(t *testing.T) {
	netns.Require(t)
	for _, system := range []interception.System{interception.SystemRedirect, interception.SystemTProxy} {
		spec := interception.DefaultFor(system)
		spec.DNS.Redirect, spec.DNS.All = true, true
		for _, family := range ruleset.Families {
			t.Run(fmt.Sprintf("%s/%s", system, family), func(t *testing.T) {
				t.Parallel()
				pod := interceptedPod(t, spec)
				if got := witness(t, pod, spec); len(got.Findings)+len(got.Unproved) > 0 {
					t.Fatalf("with all rules: %+v", got)
				}
				for i := range rulesOf(t, pod, family) {
					comment := deleteRule(t, pod, family, i)
					got := witness(t, pod, spec)
					isUnseen := slices.ContainsFunc(unseen, func(start string) bool { return strings.HasPrefix(comment, start) }) ||
						comment == "DNS queries" // others begin the same
					if (len(got.Findings) == 0) != isUnseen {
						t.Errorf("without %q: %q", comment, got.Findings)
					}
					apply(t, pod, spec)
				}
				for what, remove := range routingOf(family, ruleset.Build(spec, family).Routing) {
					if err := pod.Do(remove); err != nil {
						t.Fatalf("%s: %v", what, err)
					}
					if got := witness(t, pod, spec); len(got.Findings) != 1 || !strings.Contains(got.Findings[0], what) {
						t.Errorf("without %s: %q", what, got.Findings)
					}
					apply(t, pod, spec)
				}
			})
		}
	}
}

func interceptedPod(t *testing.T, spec interception.Spec) *netns.NS {
	t.Helper()
	lab, err := netns.NewLab()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lab.Close() })
	apply(t, lab.Pod, spec)
	return lab.Pod
}

func apply(t *testing.T, pod *netns.NS, spec interception.Spec) {
	t.Helper()
	err := pod.Do(func() error {
		host, err := kernel.Open(t.Context(), interception.Options{Backend: interception.BackendNFTables})
		if err != nil {
			return err
		}
		defer host.Close()
		var want []ruleset.RuleSet
		for _, family := range ruleset.Families {
			want = append(want, ruleset.Build(spec, family))
		}
		_, err = kernel.Apply(t.Context(), host, want, true)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func witness(t *testing.T, pod *netns.NS, spec interception.Spec) (result kernel.ProbeResult) {
	t.Helper()
	err := pod.Do(func() (err error) {
		result, err = kernel.Witness(t.Context(), spec, ruleset.Families)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// rulesOf returns all rules of a family, in an order that stays.
func rulesOf(t *testing.T, pod *netns.NS, family ruleset.Family) (all []*nftables.Rule) {
	t.Helper()
	nftFamily := nftables.TableFamilyIPv4
	if family == ruleset.IPv6 {
		nftFamily = nftables.TableFamilyIPv6
	}
	err := pod.Do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		chains, err := conn.ListChainsOfTableFamily(nftFamily)
		if err != nil {
			return err
		}
		slices.SortFunc(chains, func(a, b *nftables.Chain) int { return strings.Compare(a.Name, b.Name) })
		for _, chain := range chains {
			rules, err := conn.GetRules(chain.Table, chain)
			if err != nil {
				return err
			}
			all = append(all, rules...)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// deleteRule deletes the i-th rule, and returns its comment.
func deleteRule(t *testing.T, pod *netns.NS, family ruleset.Family, i int) (comment string) {
	t.Helper()
	rule := rulesOf(t, pod, family)[i]
	err := pod.Do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		if err := conn.DelRule(rule); err != nil {
			return err
		}
		return conn.Flush()
	})
	if err != nil {
		t.Fatal(err)
	}
	comment, _ = userdata.GetString(rule.UserData, userdata.TypeComment)
	return strings.TrimPrefix(comment, "shunt: ")
}

// routingOf returns what deletes each part of the routing, by the words of ip(8) for it.
func routingOf(family ruleset.Family, routing ruleset.Routing) map[string]func() error {
	af := map[ruleset.Family]int{ruleset.IPv4: netlink.FAMILY_V4, ruleset.IPv6: netlink.FAMILY_V6}[family]
	all := map[string]func() error{}
	for _, route := range routing.Routes {
		all["route add local default"] = func() error {
			routes, err := netlink.RouteListFiltered(af, &netlink.Route{Table: int(route.Table)}, netlink.RT_FILTER_TABLE)
			if err != nil {
				return err
			}
			return netlink.RouteDel(&routes[0])
		}
	}
	for _, rule := range routing.Rules {
		all["rule add "+rule.String()] = func() error {
			rules, err := netlink.RuleList(af)
			if err != nil {
				return err
			}
			ours := slices.IndexFunc(rules, func(r netlink.Rule) bool { return r.Table == int(rule.Table) })
			return netlink.RuleDel(&rules[ours])
		}
	}
	for _, address := range routing.Addresses {
		all["address add "+address.String()] = func() error {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			addr, err := netlink.ParseAddr(address.String())
			if err != nil {
				return err
			}
			return netlink.AddrDel(lo, addr)
		}
	}
	return all
}

// TestWitnessOfATakenPort checks that a listener at the proxy's port makes no missing rule look well: here
// the destination answers, one hop away.
func TestWitnessOfATakenPort(t *testing.T) {
	netns.Require(t)
	spec := interception.DefaultFor(interception.SystemRedirect)
	spec.DNS.Redirect, spec.DNS.All = true, true
	for _, intercepted := range []bool{true, false} {
		lab, err := netns.NewLab()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = lab.Close() })
		if intercepted {
			apply(t, lab.Pod, spec)
		}
		for _, wildcard := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
			for _, port := range []uint16{spec.OutboundPort, spec.DNS.Port} {
				listen(t, lab.Pod, "tcp", netip.AddrPortFrom(wildcard, port))
			}
			listen(t, lab.Pod, "udp", netip.AddrPortFrom(wildcard, spec.DNS.Port))
			for _, port := range []uint16{443, 53} {
				listen(t, lab.Outside, "tcp", netip.AddrPortFrom(wildcard, port))
			}
		}
		got := witness(t, lab.Pod, spec)
		if (len(got.Findings) == 0) != intercepted {
			t.Errorf("intercepted %v: %q", intercepted, got.Findings)
		}
		if intercepted && len(got.Unproved) != 2 { // udp of both families, which nobody can follow
			t.Errorf("unproved: %q", got.Unproved)
		}
	}
}

func listen(t *testing.T, ns *netns.NS, network string, at netip.AddrPort) {
	t.Helper()
	server, err := ns.Listen(network, at, netns.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
}
