//go:build linux

package rules

import (
	"errors"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/test/netns"
)

// proofTable is the routing table in which shunt-init keeps its proof.
const proofTable = 1330133

// shunt-init's output about the probes.
const (
	saysProved   = ", read back; proved by an earlier run"
	saysVerified = ", verified"
	thenSays     = "; not intercepted: "
)

// attempt runs shunt-init, and returns its exit code and output.
func attempt(t *testing.T, pod *netns.NS, bin string, args ...string) (code int, output string) {
	t.Helper()
	out, err := pod.Command(t.Context(), bin, args...).CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, string(out)
	case errors.As(err, &exit):
		return exit.ExitCode(), string(out)
	}
	t.Fatal(err)
	return 0, ""
}

// obstacle blocks a probe, and cannot be found by reading the rules.
type obstacle struct {
	args      string
	put, take func(t *testing.T, pod *netns.NS)
}

// obstacles are added before the first run, and removed before the last.
var obstacles = map[string]obstacle{
	"notrack of native nft": {"-m REDIRECT --ipv6=off", addNotrack, removeNotrack},
	"lo down":               {"-m REDIRECT --ipv6=off", commanded("ip link set lo down"), commanded("ip link set lo up")},
}

func commanded(line string) func(*testing.T, *netns.NS) {
	return func(t *testing.T, pod *netns.NS) {
		t.Helper()
		words := strings.Fields(line)
		run(t, pod, words[0], words[1:]...)
	}
}

// withNFT changes nf_tables beside iptables.
func withNFT(t *testing.T, pod *netns.NS, change func(*nftables.Conn)) {
	t.Helper()
	err := pod.Do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		change(conn)
		return conn.Flush()
	})
	if err != nil {
		t.Fatal(err)
	}
}

var foreignTable = &nftables.Table{Name: "others", Family: nftables.TableFamilyINet}

// addNotrack keeps everything that the pod sends from conntrack, and with it from nat.
func addNotrack(t *testing.T, pod *netns.NS) {
	t.Helper()
	withNFT(t, pod, func(conn *nftables.Conn) {
		table := conn.AddTable(foreignTable)
		chain := conn.AddChain(&nftables.Chain{
			Name: "output", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityRaw,
		})
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Notrack{}}})
	})
}

func removeNotrack(t *testing.T, pod *netns.NS) {
	t.Helper()
	withNFT(t, pod, func(conn *nftables.Conn) { conn.DelTable(foreignTable) })
}

// TestFailedProbeHoldsBack checks that every run fails as long as probes get lost, also if it finds
// the rules in place, and that the first success is remembered.
func TestFailedProbeHoldsBack(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy", "ip")
	t.Parallel()
	bin := buildShuntInit(t)
	for _, backend := range iptablesBackends {
		for name, obstacle := range obstacles {
			if backend == interception.BackendLegacy && name != "notrack of native nft" {
				continue // one is enough: each lost probe takes its time
			}
			t.Run(string(backend)+"/"+name, func(t *testing.T) {
				t.Parallel()
				pod, args := quietLab(t).Pod, argumentsOn(backend, obstacle.args)
				obstacle.put(t, pod)
				for n := range 2 {
					if code, said := attempt(t, pod, bin, args...); code != exitVerify {
						t.Errorf("run %d: exit code %d, want %d:\n%s", n+1, code, exitVerify, said)
					}
				}
				obstacle.take(t, pod)
				for _, want := range []string{saysVerified, saysProved, saysProved} {
					if code, said := attempt(t, pod, bin, args...); code != 0 || !strings.Contains(said, "nothing to change"+want) {
						t.Errorf("once it is gone: exit code %d, %q, want %q", code, said, want)
					}
				}
				if backend == interception.BackendLegacy {
					return // a lost probe takes its time
				}
				// --verify finds a later obstacle, and deletes the proof for the next run.
				obstacle.put(t, pod)
				if code, said := attempt(t, pod, bin, append(args, "--verify")...); code != exitVerify {
					t.Errorf("--verify: exit code %d, want %d:\n%s", code, exitVerify, said)
				}
				obstacle.take(t, pod)
				if said := run(t, pod, bin, args...); !strings.Contains(said, "nothing to change"+saysVerified) {
					t.Errorf("after --verify that failed: %q", said)
				}
			})
		}
	}
}

// TestTakenAddresses checks that a pod may have the addresses that probes use. If it has those of
// the link, the output names what no probe could show.
func TestTakenAddresses(t *testing.T) {
	netns.Require(t, "ip")
	t.Parallel()
	bin := buildShuntInit(t)
	const noneIn = saysVerified + ", but no probe could come in over IPv4 here" + thenSays
	for addr, want := range map[string]string{
		"198.51.100.1/32": saysVerified + thenSays, "2001:db8:1::1/128": saysVerified + thenSays, "192.0.2.1/32": saysVerified + thenSays,
		"192.0.2.2/24": noneIn, "192.0.2.9/32": noneIn, "192.0.2.77/32": noneIn,
	} {
		t.Run(addr, func(t *testing.T) {
			t.Parallel()
			pod := quietLab(t).Pod
			run(t, pod, "ip", "addr", "add", addr, "dev", "eth0")
			if said := run(t, pod, bin, "-m", "TPROXY"); !strings.Contains(said, want) {
				t.Errorf("%q, want %q", said, want)
			}
		})
	}
}

// TestKilledInProof kills first runs while they send probes. The next run must send its own, and
// remove what the killed one has left.
func TestKilledInProof(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy")
	t.Parallel()
	adoptOrphans(t)
	bin := buildShuntInit(t)
	for _, backend := range backends {
		t.Run(string(backend), func(t *testing.T) {
			t.Parallel()
			args, begun := argumentsOn(backend, "-m TPROXY"), time.Now()
			pod := quietLab(t).Pod
			for !killOnce(t, pod, func() bool { return guarded(t, pod) }, bin, args...) {
				if time.Since(begun) > time.Minute {
					t.Fatal("no run was caught while it sent probes")
				}
				run(t, pod, bin, "--remove", "--backend="+string(backend))
			}
			if said := run(t, pod, bin, args...); !strings.Contains(said, "nothing to change"+saysVerified) {
				t.Errorf("the next run says %q", said)
			}
			noProbesLeft(t, pod)
		})
	}
}

// TestProofIsOfWhatIsThere changes a namespace that was proved. The next run must send probes
// again, and a run after it without changes must not.
func TestProofIsOfWhatIsThere(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy", "ip")
	t.Parallel()
	bin := buildShuntInit(t)
	for _, backend := range backends {
		iptables := "iptables-" + string(commandsWith(backend))
		changes := map[string]func(*testing.T, *netns.NS){
			"a rule of others":       commanded(iptables + " -A INPUT -s 203.0.113.1 -j DROP"),
			"a policy of others":     commanded(iptables + " -P FORWARD DROP"),
			"an IPv6 rule of others": commanded("ip6" + strings.TrimPrefix(iptables, "ip") + " -A INPUT -s 2001:db8:9::1 -j DROP"),
			"a table of native nft": func(t *testing.T, pod *netns.NS) {
				withNFT(t, pod, func(c *nftables.Conn) { c.AddTable(foreignTable) })
			},
			"applied without a proof": func(t *testing.T, pod *netns.NS) { moveThereAndBack(t, pod, bin, backend) },
			"the proof of one family gone": func(t *testing.T, pod *netns.NS) {
				removeProof(t, pod, ruleset.IPv6)
			},
		}
		for name, change := range changes {
			t.Run(string(backend)+"/"+name, func(t *testing.T) {
				t.Parallel()
				pod, args := quietLab(t).Pod, argumentsOn(backend, "-m TPROXY")
				for _, want := range []string{saysVerified, saysProved} {
					if said := run(t, pod, bin, args...); !strings.Contains(said, want) {
						t.Errorf("%q, want %q", said, want)
					}
				}
				change(t, pod)
				for _, want := range []string{saysVerified, saysProved} {
					if said := run(t, pod, bin, args...); !strings.Contains(said, "nothing to change"+want) {
						t.Errorf("changed: %q, want %q", said, want)
					}
				}
				before := wholeOf(t, pod)
				if said := run(t, pod, bin, args...); !strings.Contains(said, saysProved) {
					t.Errorf("after a look: %q", said)
				}
				if after := wholeOf(t, pod); len(after) != len(before) {
					t.Error("the proof changed something")
				}
				run(t, pod, bin, "--remove", "--backend="+string(backend))
				for _, family := range []string{"-4", "-6"} {
					if left := run(t, pod, "ip", family, "route", "show", "table", "all"); strings.Contains(left, "blackhole") {
						t.Errorf("after --remove:\n%s", left)
					}
				}
			})
		}
	}
}

// moveThereAndBack ends with the rules that were proved, as if in another namespace.
func moveThereAndBack(t *testing.T, pod *netns.NS, bin string, backend interception.Backend) {
	t.Helper()
	for _, system := range []string{"-m REDIRECT", "-m TPROXY"} {
		run(t, pod, bin, argumentsOn(backend, system, skipVerify)...)
	}
}

// removeProof deletes shunt-init's proof of one family.
func removeProof(t *testing.T, pod *netns.NS, family ruleset.Family) {
	t.Helper()
	number := map[ruleset.Family]int{ruleset.IPv4: netlink.FAMILY_V4, ruleset.IPv6: netlink.FAMILY_V6}[family]
	routes, err := pod.Netlink().RouteListFiltered(number, &netlink.Route{Table: proofTable}, netlink.RT_FILTER_TABLE)
	if err != nil || len(routes) != 1 {
		t.Fatalf("%d proofs of %s: %v", len(routes), family, err)
	}
	if err := pod.Netlink().RouteDel(&routes[0]); err != nil {
		t.Fatal(err)
	}
}

// TestProofCostsNoPacket checks that no rule looks up the proof: the pod's packets to any address
// take the same route as before.
func TestProofCostsNoPacket(t *testing.T) {
	netns.Require(t, "iptables-nft", "ip")
	t.Parallel()
	bin, pod := buildShuntInit(t), quietLab(t).Pod
	ways := func() (all []string) {
		for _, to := range []string{"10.0.0.9", "203.0.113.1", "fd00::9", "2001:db8:1::1"} {
			addr := netip.MustParseAddr(to)
			all = append(all, run(t, pod, "ip", "route", "get", addr.String()))
		}
		for _, family := range []string{"-4", "-6"} {
			all = append(all, run(t, pod, "ip", family, "rule"))
		}
		return all
	}
	run(t, pod, bin, "-m", "TPROXY", skipVerify)
	before := strings.Join(ways(), "")
	run(t, pod, bin, "-m", "TPROXY")
	if after := strings.Join(ways(), ""); after != before {
		t.Errorf("without a proof\n%swith one\n%s", before, after)
	}
}
