//go:build linux

package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/test/netns"
)

// iptablesBackends run iptables' commands. backends are all.
var (
	iptablesBackends = []interception.Backend{interception.BackendNFT, interception.BackendLegacy}
	backends         = []interception.Backend{interception.BackendNFT, interception.BackendLegacy, interception.BackendNFTables}
)

// TestKernel, the third executor, installs the rules of every case twice in a namespace, reads
// them back, and sends real connections through them.
func TestKernel(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy", "nft")
	t.Parallel()
	for _, backend := range backends {
		for _, c := range cases(t) {
			if c.Refused() || !c.TakenBy(backend) {
				continue
			}
			t.Run(string(backend)+"/"+c.Name, func(t *testing.T) {
				t.Parallel()
				checkKernel(t, c, backend)
			})
		}
	}
}

func checkKernel(t *testing.T, test Case, backend interception.Backend) {
	spec, opts, err := test.Spec()
	if err != nil {
		t.Fatal(err)
	}
	if len(test.Packets) == 0 {
		t.Error("the case sends no packet")
	}
	opts.Backend = backend
	a := newArena(t, spec, test.Packets, func(pod *netns.NS) { installTwice(t, pod, spec, opts) })
	var waiting sync.WaitGroup
	defer waiting.Wait()
	if spec.NoConntrack {
		defer untracked(t, a.lab.Pod)
	}
	for _, x := range test.Packets {
		cross := func() {
			if err := a.cross(t.Context(), x); err != nil {
				t.Error(err)
			}
		}
		if x.Want.Fate == ruleset.Dropped {
			waiting.Go(cross) // for an answer that does not come
		} else {
			cross()
		}
	}
}

// installTwice installs the rules, checks that they and nothing else are there, and that a second
// run changes nothing.
func installTwice(t *testing.T, pod *netns.NS, spec interception.Spec, opts interception.Options) {
	t.Helper()
	families := []ruleset.Family{ruleset.IPv4}
	if opts.IPv6 != interception.IPv6Off {
		families = ruleset.Families
	}
	before := map[ruleset.Family]routing{}
	for _, family := range families {
		before[family] = readRouting(t, pod, family)
	}
	if !apply(t, pod, spec, opts).Changed {
		t.Error("the first time changed nothing")
	}
	once := snapshot(t, pod, opts.Backend)
	for _, family := range families {
		checkReadBack(t, pod, opts.Backend, ruleset.Build(spec, family), before[family])
	}
	checkOtherBackend(t, pod, opts.Backend)
	if apply(t, pod, spec, opts).Changed {
		t.Error("the second time says that it changed something")
	}
	if diff := cmp.Diff(once, snapshot(t, pod, opts.Backend)); diff != "" {
		t.Errorf("the second time changed something (-once +twice):\n%s", diff)
	}
}

// checkReadBack compares what the kernel holds with what was built.
func checkReadBack(t *testing.T, pod *netns.NS, backend interception.Backend, built ruleset.RuleSet, before routing) {
	t.Helper()
	if backend == interception.BackendNFTables {
		checkNativeReadBack(t, pod, built)
		checkRouting(t, built, before, readRouting(t, pod, built.Family))
		return
	}
	text := save(t, pod, backend, built.Family)
	read, err := ruleset.Parse(built.Family, text)
	if err != nil {
		t.Fatal(err)
	}
	own := read.Owned()
	own.Routing = built.Routing // compared below
	if diff := ruleset.Diff(built, own); diff != nil {
		t.Errorf("%s, as saved by iptables-%s, differs from what was built: %q", built.Family, backend, diff)
	}
	if found, wanted := strings.Count(text, "\n-A "), strings.Count(built.String(), "\n-A "); found != wanted {
		t.Errorf("%s: %d rules in the namespace, %d were built", built.Family, found, wanted)
	}
	checkRouting(t, built, before, readRouting(t, pod, built.Family))
}

// checkRouting compares what netlink lists with what was built: each part once, and nothing else.
func checkRouting(t *testing.T, built ruleset.RuleSet, before, after routing) {
	t.Helper()
	if got, want := len(after.rules)-len(before.rules), len(built.Routing.Rules); got != want {
		t.Errorf("%s: %d policy rules were added, want %d: %v", built.Family, got, want, after.rules)
	}
	if got, want := len(after.addresses)-len(before.addresses), len(built.Routing.Addresses); got != want {
		t.Errorf("%s: %d addresses were added to lo, want %d: %v", built.Family, got, want, after.addresses)
	}
	for _, rule := range built.Routing.Rules {
		if n := after.countRules(rule); n != 1 {
			t.Errorf("%s: %d policy rules are %+v, want 1: %v", built.Family, n, rule, after.rules)
		}
	}
	for _, route := range built.Routing.Routes {
		if n := after.countRoutes(route, built.Family); n != 1 {
			t.Errorf("%s: %d routes are %+v, want 1: %v", built.Family, n, route, after.routes)
		}
	}
	for _, addr := range built.Routing.Addresses {
		if n := strings.Count(fmt.Sprint(after.addresses), addr.String()); n != 1 {
			t.Errorf("%s: lo has %s %d times, want once: %v", built.Family, addr, n, after.addresses)
		}
	}
}

// checkOtherBackend checks that other backends have no rules. Listing legacy tables creates them, so
// it checks that they do not exist; listing nft's creates nothing.
func checkOtherBackend(t *testing.T, pod *netns.NS, backend interception.Backend) {
	t.Helper()
	if backend != interception.BackendLegacy {
		names := run(t, pod, "cat", "/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names")
		if names != "" {
			t.Errorf("with %s there are the legacy tables %q", backend, names)
		}
	}
	for _, other := range []interception.Backend{interception.BackendNFT, interception.BackendNFTables} {
		for _, family := range ruleset.Families {
			text := save(t, pod, other, family)
			if other != backend && (strings.Contains(text, "-A ") || other == interception.BackendNFTables && text != "") {
				t.Errorf("with %s there are rules of %s:\n%s", backend, other, text)
			}
		}
	}
}

func save(t *testing.T, pod *netns.NS, backend interception.Backend, family ruleset.Family) string {
	t.Helper()
	if backend == interception.BackendNFTables {
		return listNative(t, pod, family)
	}
	tool := map[ruleset.Family]string{ruleset.IPv4: "iptables-", ruleset.IPv6: "ip6tables-"}[family]
	return run(t, pod, tool+string(backend)+"-save")
}

// state is everything that the rules are made of, as text.
type state struct {
	Saved   map[string]string
	Routing map[string]string
}

func snapshot(t *testing.T, pod *netns.NS, backend interception.Backend) state {
	t.Helper()
	s := state{map[string]string{}, map[string]string{}}
	for _, family := range ruleset.Families {
		s.Saved[family.String()] = withoutChance(save(t, pod, backend, family))
		s.Routing[family.String()] = readRouting(t, pod, family).String()
	}
	return s
}

var (
	comments = regexp.MustCompile(`(?m)^#.*\n`)
	counters = regexp.MustCompile(`\[\d+:\d+\]`)
)

// withoutChance omits what differs between two runs of iptables-save: the time, and the counters.
func withoutChance(saved string) string {
	return counters.ReplaceAllString(comments.ReplaceAllString(saved, ""), "[0:0]")
}

// routing is what netlink lists of one family.
type routing struct {
	rules     []netlink.Rule
	routes    []netlink.Route // of all tables
	addresses []netlink.Addr  // of lo
}

func readRouting(t *testing.T, pod *netns.NS, family ruleset.Family) routing {
	t.Helper()
	number := map[ruleset.Family]int{ruleset.IPv4: unix.AF_INET, ruleset.IPv6: unix.AF_INET6}[family]
	lo, err := pod.Netlink().LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	var routing routing
	if routing.rules, err = pod.Netlink().RuleList(number); err != nil {
		t.Fatal(err)
	}
	all := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
	if routing.routes, err = pod.Netlink().RouteListFiltered(number, all, netlink.RT_FILTER_TABLE); err != nil {
		t.Fatal(err)
	}
	// The kernel adds its own for an interface's link-local address late.
	routing.routes = slices.DeleteFunc(routing.routes, func(route netlink.Route) bool {
		return route.Protocol == unix.RTPROT_KERNEL && route.Dst != nil && route.Dst.IP.IsLinkLocalUnicast()
	})
	if routing.addresses, err = pod.Netlink().AddrList(lo, number); err != nil {
		t.Fatal(err)
	}
	return routing
}

func (r routing) String() string {
	var b strings.Builder
	for _, rule := range r.rules {
		fmt.Fprintln(&b, rule, rule.Mark, rule.OifName, rule.Priority)
	}
	for _, route := range r.routes {
		fmt.Fprintln(&b, route)
	}
	for _, addr := range r.addresses {
		fmt.Fprintln(&b, addr.IPNet)
	}
	return b.String()
}

func (r routing) countRules(want ruleset.PolicyRule) int {
	n := 0
	for _, rule := range r.rules {
		mask, from := uint32(0), ""
		if rule.Mask != nil {
			mask = *rule.Mask
		}
		if rule.Src != nil {
			from = rule.Src.String()
		}
		wantFrom := ""
		if want.Source.IsValid() {
			wantFrom = want.Source.String()
		}
		if rule.Mark == want.Mark && mask == want.Mask && from == wantFrom && rule.OifName == want.OutInterface &&
			rule.Table == int(want.Table) {
			n++
		}
	}
	return n
}

func (r routing) countRoutes(want ruleset.LocalRoute, family ruleset.Family) int {
	everything := map[ruleset.Family]string{ruleset.IPv4: "0.0.0.0/0", ruleset.IPv6: "::/0"}[family]
	n := 0
	for _, route := range r.routes {
		if route.Table != int(want.Table) || route.Type != unix.RTN_LOCAL {
			continue
		}
		if route.Dst == nil || route.Dst.String() == everything {
			n++
		}
	}
	return n
}
