//go:build linux

package rules

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// damages are changes by hand to Shunt's rules and routing in -m TPROXY. Each diverts packets, or
// may.
var damages = map[string]func(*testing.T, *netns.NS){
	"the route narrowed": lines("ip route del local default dev lo table 133", "ip route add local 10.0.0.0/8 dev lo table 133 proto 133"),
	"the IPv6 route narrowed": lines("ip -6 route del local default dev lo table 133",
		"ip -6 route add local fd00::/8 dev lo table 133 proto 133"),
	"a narrower route beside it": lines("ip route add local 10.0.0.0/8 dev lo table 133 proto 133"),
	"the route made unreachable": lines("ip route del local default dev lo table 133",
		"ip route add unreachable default table 133 proto 133"),
	"the rule narrowed to ranges":                        ruleNarrowed("to 10.0.0.0/8"),
	"the rule narrowed to what comes in by an interface": ruleNarrowed("iif eth0"),
	"the rule narrowed to a user":                        ruleNarrowed("uidrange 1000-1000"),
	"the rule narrowed to a protocol":                    ruleNarrowed("ipproto udp"),
	"the rule narrowed to ports":                         ruleNarrowed("sport 1-1000"),
	"the rule narrowed to a type of service":             ruleNarrowed("tos 0x10"),
	"the rule inverted":                                  lines(ruleDeleted, "ip rule add pref 0 not fwmark 0x539 lookup 133 proto 133"),
	"a rule that iptables-save cannot print":             addUnprintable("SHUNT_OUTPUT"),
}

const ruleDeleted = "ip rule del pref 0 fwmark 0x539 lookup 133"

func ruleNarrowed(how string) func(*testing.T, *netns.NS) {
	return lines(ruleDeleted, "ip rule add pref 0 "+how+" fwmark 0x539 lookup 133 proto 133")
}

func lines(all ...string) func(*testing.T, *netns.NS) {
	return func(t *testing.T, pod *netns.NS) {
		t.Helper()
		run(t, pod, "sh", "-ec", strings.Join(all, "\n"))
	}
}

// addUnprintable inserts "meta skuid 1000 accept" at the head of a chain of iptables' nat table.
func addUnprintable(chain string) func(*testing.T, *netns.NS) {
	return func(t *testing.T, pod *netns.NS) {
		t.Helper()
		withNFT(t, pod, func(conn *nftables.Conn) {
			table := &nftables.Table{Name: "nat", Family: nftables.TableFamilyIPv4}
			conn.InsertRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Name: chain, Table: table}, Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeySKUID, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(1000)},
				&expr.Verdict{Kind: expr.VerdictAccept},
			}})
		})
	}
}

// TestWayBack checks that every damage is found, and that both a run and a removal repair it.
func TestWayBack(t *testing.T) {
	netns.Require(t, "iptables-nft", "ip")
	t.Parallel()
	bin := buildShuntInit(t)
	args := argumentsOn(interception.BackendNFT, "-m TPROXY")
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := quietLab(t).Pod
			before := wholeOf(t, pod)
			run(t, pod, bin, args...)
			fresh := stateOf(t, pod, interception.BackendNFT)
			damaged := func() {
				t.Helper()
				damage(t, pod)
				if code, said := attempt(t, pod, bin, append(args, "--verify")...); code != exitVerify {
					t.Errorf("--verify: exit code %d, want %d: %s", code, exitVerify, said)
				}
			}
			damaged()
			if said := run(t, pod, bin, args...); !strings.Contains(said, "applied, verified") {
				t.Errorf("a run says %q", said)
			}
			if diff := cmp.Diff(fresh, stateOf(t, pod, interception.BackendNFT)); diff != "" {
				t.Errorf("run again (-fresh +got):\n%s", diff)
			}
			damaged()
			run(t, pod, bin, "--remove")
			if diff := cmp.Diff(before, wholeOf(t, pod)); diff != "" {
				t.Errorf("removed (-before +after):\n%s", diff)
			}
		})
	}
}

// TestUnprintableRuleOfOthers checks that if nothing can be changed, nothing is touched, and the
// error names the chain of the rule in the way.
func TestUnprintableRuleOfOthers(t *testing.T) {
	netns.Require(t, "iptables-nft")
	t.Parallel()
	bin, pod := buildShuntInit(t), quietLab(t).Pod
	run(t, pod, bin, "-m", "REDIRECT")
	addUnprintable("OUTPUT")(t, pod)
	for _, args := range [][]string{{"-m", "REDIRECT"}, {"-m", "TPROXY"}, {"-m", "REDIRECT", "--verify"}, {"--remove"}} {
		code, said := attempt(t, pod, bin, args...)
		if code != exitPreflight || !strings.Contains(said, "cannot print the IPv4 chain OUTPUT of table nat") {
			t.Errorf("%q: exit code %d: %s", args, code, said)
		}
	}
}
