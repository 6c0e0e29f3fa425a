//go:build linux

package rules

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/test/netns"
)

// TestWhatCannotBeProbed checks that a namespace that forbids IPv6 on new interfaces, and so on the
// probes' link, is verified, and that the output names what was not probed.
func TestWhatCannotBeProbed(t *testing.T) {
	netns.Require(t)
	t.Parallel()
	shuntInit := buildShuntInit(t)
	pod := newLab(t).Pod
	if err := pod.Sysctl("net/ipv6/conf/default/disable_ipv6", "1"); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-m", "TPROXY"}, {"-m", "TPROXY", "--verify"}} {
		if out := run(t, pod, shuntInit, args...); !strings.Contains(out, "verified, but IPv6 could not be probed here") {
			t.Errorf("%q: %s", args, out)
		}
	}
	if err := pod.Sysctl("net/ipv6/conf/default/disable_ipv6", "0"); err != nil {
		t.Fatal(err)
	}
	if out := run(t, pod, shuntInit, "-m", "TPROXY", "--verify"); !strings.Contains(out, ": verified"+thenSays) {
		t.Errorf("with IPv6 everywhere: %s", out)
	}
}

// native is a rule of native nft, in a table of others.
type native struct {
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority int32
	rule     []expr.Any
	drops    bool // by its policy
}

func (n native) put(t *testing.T, pod *netns.NS) {
	t.Helper()
	withNFT(t, pod, func(conn *nftables.Conn) {
		policy := nftables.ChainPolicyAccept
		if n.drops {
			policy = nftables.ChainPolicyDrop
		}
		table := conn.AddTable(foreignTable)
		chain := conn.AddChain(&nftables.Chain{
			Name: "others", Table: table, Type: n.kind, Hooknum: n.hook, Policy: &policy,
			Priority: nftables.ChainPriorityRef(nftables.ChainPriority(n.priority)),
		})
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: n.rule})
	})
}

// by returns the match of an interface's name.
func by(key expr.MetaKey, name string, then ...expr.Any) []expr.Any {
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, name)
	return append([]expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data}}, then...)
}

// redirectTo returns what nft calls "meta l4proto tcp redirect to".
func redirectTo(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.Redir{RegisterProtoMin: 1},
	}
}

// bypasses are rules of others that divert connections past the proxy, by the pod's interfaces and
// in tables that iptables does not list.
var bypasses = map[string]struct {
	args string
	put  func(*testing.T, *netns.NS)
}{
	"notrack on the way out by eth0": {"-m REDIRECT", native{
		nftables.ChainTypeFilter, nftables.ChainHookOutput, -300, by(expr.MetaKeyOIFNAME, "eth0", &expr.Notrack{}), false,
	}.put},
	"notrack on the way out by another interface": {"-m TPROXY", native{
		nftables.ChainTypeFilter, nftables.ChainHookOutput, -300, by(expr.MetaKeyOIFNAME, "net1", &expr.Notrack{}), false,
	}.put},
	"notrack on the way in": {"-m REDIRECT", native{
		nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -300, []expr.Any{&expr.Notrack{}}, false,
	}.put},
	"redirected before ours": {"-m REDIRECT", native{
		nftables.ChainTypeNAT, nftables.ChainHookPrerouting, -110, redirectTo(9999), false,
	}.put},
	"redirected before ours on the way out": {"-m TPROXY", native{
		nftables.ChainTypeNAT, nftables.ChainHookOutput, -110, by(expr.MetaKeyOIFNAME, "eth0", redirectTo(9999)...), false,
	}.put},
	"another mark on the way out by eth0": {"--system=ambient --backend=nft", commanded(
		"iptables-nft -t mangle -A OUTPUT -o eth0 -j MARK --set-mark 0x539")},
	"the other backend, by another interface": {"-m REDIRECT --backend=nft", commanded(
		"iptables-legacy -t nat -A OUTPUT -p tcp -o net1 -j REDIRECT --to-ports 9999")},
}

// TestProbesMeetOthers diverts connections past the proxy. shunt-init must find that, before and
// after its own rules, and none of its probes may leave the pod.
func TestProbesMeetOthers(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy", "ip")
	t.Parallel()
	bin := buildShuntInit(t)
	for name, bypass := range bypasses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := quietLab(t, "net1")
			args, strays := strings.Fields(bypass.args), watch(t, lab.Outside)
			run(t, lab.Pod, bin, args...)
			bypass.put(t, lab.Pod)
			if code, said := attempt(t, lab.Pod, bin, args...); code != exitVerify {
				t.Errorf("%q: exit code %d, want %d:\n%s", args, code, exitVerify, said)
			}
			if n := strays(); n != 0 {
				t.Errorf("%d packets of probes left the pod", n)
			}
			noProbesLeft(t, lab.Pod)
		})
	}
}

// noProbesLeft checks that a namespace holds nothing of the probes.
func noProbesLeft(t *testing.T, pod *netns.NS) {
	t.Helper()
	for what, text := range wholeOf(t, pod) {
		for _, trace := range []string{probeLink, "198.51.100.", "192.0.2.", "2001:db8:", "1330134"} {
			if strings.Contains(text, trace) {
				t.Errorf("%s still has %s:\n%s", what, trace, text)
			}
		}
	}
	if guarded(t, pod) {
		t.Errorf("nf_tables still has the table %s", probeLink)
	}
}

// guarded reports whether nf_tables has the table that keeps probes from the wire.
func guarded(t *testing.T, pod *netns.NS) (there bool) {
	t.Helper()
	withNFT(t, pod, func(conn *nftables.Conn) {
		tables, err := conn.ListTables()
		if err != nil {
			t.Error(err)
		}
		there = slices.ContainsFunc(tables, func(table *nftables.Table) bool { return table.Name == probeLink })
	})
	return there
}

// watch counts what leaves the pod to or from the addresses of probes.
func watch(t *testing.T, outside *netns.NS) func() uint64 {
	t.Helper()
	conn, table, chain := (*nftables.Conn)(nil), &nftables.Table{Name: "watch", Family: nftables.TableFamilyINet}, (*nftables.Chain)(nil)
	at := func(do func() error) {
		t.Helper()
		if err := outside.Do(do); err != nil {
			t.Fatal(err)
		}
	}
	at(func() (err error) {
		if conn, err = nftables.New(); err != nil {
			return err
		}
		conn.AddTable(table)
		chain = conn.AddChain(&nftables.Chain{
			Name: "watch", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityFirst,
		})
		for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
				&expr.Counter{},
			}})
		}
		return conn.Flush()
	})
	return func() (n uint64) {
		at(func() error {
			rules, err := conn.GetRules(table, chain)
			for _, r := range rules {
				for _, e := range r.Exprs {
					if c, is := e.(*expr.Counter); is {
						n += c.Packets
					}
				}
			}
			return err
		})
		return n
	}
}

// TestWatchSees checks that TestProbesMeetOthers would notice.
func TestWatchSees(t *testing.T) {
	netns.Require(t)
	t.Parallel()
	lab := newLab(t, "net1")
	strays := watch(t, lab.Outside)
	_, _ = lab.Pod.Ask(t.Context(), "tcp", netip.AddrPortFrom(netns.OutsideIPv4, 9), netns.DialOptions{Timeout: dropTime})
	if strays() == 0 {
		t.Error("a connection left the pod, and was not seen")
	}
}

// TestFirewallIsNoBypass drops or rejects what comes in. Nothing bypasses the proxy then, and the
// output names what no probe could show.
func TestFirewallIsNoBypass(t *testing.T) {
	netns.Require(t, "iptables-nft", "ip")
	t.Parallel()
	bin := buildShuntInit(t)
	ours := by(expr.MetaKeyIIFNAME, "lo", &expr.Verdict{Kind: expr.VerdictAccept})
	firewalls := map[string]func(*testing.T, *netns.NS){
		"native nft": native{nftables.ChainTypeFilter, nftables.ChainHookInput, 0, ours, true}.put,
		"iptables": func(t *testing.T, pod *netns.NS) {
			t.Helper()
			run(t, pod, "sh", "-ec", "for i in iptables-nft ip6tables-nft; do $i -A INPUT -i lo -j ACCEPT; $i -P INPUT DROP; done")
		},
	}
	for name, put := range firewalls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := quietLab(t).Pod
			put(t, pod)
			said := run(t, pod, bin, "-m", "REDIRECT", "--backend=nft")
			for _, family := range []string{"IPv4", "IPv6"} {
				if !strings.Contains(said, "verified") || !strings.Contains(said, "no probe could come in over "+family) {
					t.Errorf("%q", said)
				}
			}
			if said := run(t, pod, bin, "-m", "REDIRECT", "--backend=nft"); strings.Contains(said, saysProved) {
				t.Errorf("what was not proved is remembered: %q", said)
			}
		})
	}
}

// TestProbeIsSentAgain: a busy node may lose a packet of its own, and the pod is not to fail for it. The
// rule drops the first packet that a probe sends in by the link, and no other.
func TestProbeIsSentAgain(t *testing.T) {
	netns.Require(t, "iptables-nft")
	t.Parallel()
	bin, lab := buildShuntInit(t), quietLab(t, "net1")
	run(t, lab.Pod, "iptables-nft", "-t", "mangle", "-A", "PREROUTING", "-i", "shunt-probe", "-p", "tcp",
		"-m", "statistic", "--mode", "nth", "--every", "1000000", "--packet", "0", "-j", "DROP")
	if said := run(t, lab.Pod, bin, "-m", "REDIRECT", "--ipv6=off"); !strings.Contains(said, saysVerified+thenSays) {
		t.Errorf("%q", said)
	}
	if rules := run(t, lab.Pod, "iptables-nft", "-t", "mangle", "-L", "PREROUTING", "-v", "-x", "-n"); !strings.Contains(rules, " 1 ") {
		t.Errorf("the rule dropped no packet, or more than one:\n%s", rules)
	}
}

// TestProbesBesidePolicyRouting routes everything by a table of its own, as some network plug-ins
// do. Probes must come in all the same, and leave nothing behind.
func TestProbesBesidePolicyRouting(t *testing.T) {
	netns.Require(t, "ip")
	t.Parallel()
	bin, lab := buildShuntInit(t), quietLab(t, "net1")
	lines("ip route add default via 169.254.1.1 dev net1 onlink table 100", "ip rule add pref 10 lookup 100",
		"ip -6 route add default dev net1 table 100", "ip -6 rule add pref 10 lookup 100")(t, lab.Pod)
	strays, before := watch(t, lab.Outside), run(t, lab.Pod, "ip", "rule")
	if said := run(t, lab.Pod, bin, "-m", "REDIRECT", "--ipv6=auto"); !strings.Contains(said, saysVerified+thenSays) {
		t.Errorf("%q", said)
	}
	if n := strays(); n != 0 {
		t.Errorf("%d packets of probes left the pod", n)
	}
	if after := run(t, lab.Pod, "ip", "rule"); after != before {
		t.Errorf("rules before\n%safter\n%s", before, after)
	}
	noProbesLeft(t, lab.Pod)
}
