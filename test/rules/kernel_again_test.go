//go:build linux

package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/test/netns"
)

// manyArguments are arguments of runs that have little in common.
var manyArguments = []string{
	"-m REDIRECT",
	"-m TPROXY",
	"--system=ambient",
	"--system=legacy",
	"-m REDIRECT --redirect-dns --capture-all-dns",
	"-m TPROXY --redirect-dns --dns-servers=10.0.0.53,fd00::53 -t 7 -r 9",
	"-m TPROXY --capture-udp-ports=443 --reject-udp-ports=8443 --drop-invalid -c net1",
	"-m REDIRECT -b 80,8000-8100 -d 8080 -i 10.0.0.0/8,fd00::/8 -x 10.1.0.0/16 -o 25 -k net1 -u 1337,1338",
}

// argumentsOn returns the arguments of a run on one backend.
func argumentsOn(backend interception.Backend, text string, more ...string) []string {
	return append(append(strings.Fields(text), "--backend="+string(backend)), more...)
}

const skipVerify = "--skip-verify"

// linkLocal are addresses that the kernel chooses anew for each namespace.
var linkLocal = regexp.MustCompile(`fe80::[0-9a-f:]+`)

// proof is what a run that sent its probes leaves for the next.
var proof = regexp.MustCompile(fmt.Sprintf(`(?m)^.* Table: %d .*\n`, proofTable))

// emptyTables are empty tables in iptables-save's output.
var emptyTables = regexp.MustCompile(`(?m)^\*\w+\n(:[A-Z]+ ACCEPT \[0:0\]\n)+COMMIT\n`)

// stateOf returns a namespace's rules and routing, without what is random, and without the proof.
// It omits empty legacy tables: they cannot be deleted, and have no effect.
func stateOf(t *testing.T, pod *netns.NS, backend interception.Backend) state {
	t.Helper()
	state := snapshot(t, pod, backend)
	for family, routing := range state.Routing {
		state.Routing[family] = proof.ReplaceAllString(linkLocal.ReplaceAllString(routing, "fe80::"), "")
	}
	if backend == interception.BackendLegacy {
		for family, saved := range state.Saved {
			tables := strings.SplitAfter(emptyTables.ReplaceAllString(saved, ""), "COMMIT\n")
			slices.Sort(tables) // they are listed in the order of their creation
			state.Saved[family] = strings.Join(tables, "")
		}
	}
	return state
}

// freshStates runs shunt-init with each of the arguments in a namespace of its own.
func freshStates(t *testing.T, bin string, backend interception.Backend, all []string) map[string]state {
	t.Helper()
	states := map[string]state{}
	for _, text := range all {
		pod := quietLab(t).Pod
		run(t, pod, bin, argumentsOn(backend, text, skipVerify)...)
		states[text] = stateOf(t, pod, backend)
	}
	return states
}

// TestAgainWithOthers goes from each of the arguments to every other. The result must be what a
// fresh run gives.
func TestAgainWithOthers(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy")
	t.Parallel()
	bin := buildShuntInit(t)
	for _, backend := range backends {
		t.Run(string(backend), func(t *testing.T) {
			t.Parallel()
			fresh, pod := freshStates(t, bin, backend, manyArguments), quietLab(t).Pod
			moves := 0
			for i, there := range manyArguments {
				for _, back := range manyArguments[:i] {
					for _, text := range []string{back, there, back} {
						out := run(t, pod, bin, argumentsOn(backend, text, skipVerify)...)
						if diff := cmp.Diff(fresh[text], stateOf(t, pod, backend)); diff != "" {
							t.Fatalf("%q, between it and %q (-fresh +got):\n%s", text, there, diff)
						}
						if strings.Contains(out, "applied") {
							moves++
						}
					}
				}
			}
			if least := len(manyArguments) * (len(manyArguments) - 1); moves < least {
				t.Errorf("%d runs say that they applied something, want at least %d", moves, least)
			}
		})
	}
}

// TestAgainTheSame checks that a second run changes nothing and reports that.
func TestAgainTheSame(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy", "ip")
	t.Parallel()
	bin := buildShuntInit(t)
	for _, backend := range backends {
		for _, text := range manyArguments {
			t.Run(string(backend)+" "+text, func(t *testing.T) {
				t.Parallel()
				pod := quietLab(t, "net1").Pod
				run(t, pod, bin, argumentsOn(backend, text)...)
				once := wholeOf(t, pod)
				if out := run(t, pod, bin, argumentsOn(backend, text)...); !strings.Contains(out, "nothing to change") {
					t.Errorf("the second run says %q", out)
				}
				if diff := cmp.Diff(once, wholeOf(t, pod)); diff != "" {
					t.Errorf("the second run changed something (-once +twice):\n%s", diff)
				}
			})
		}
	}
}

// TestTwoAtOnce starts two runs together. Both must succeed, and the namespace end as one of them
// wants it.
func TestTwoAtOnce(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy")
	t.Parallel()
	const rounds = 20
	bin := buildShuntInit(t)
	for _, backend := range backends {
		t.Run(string(backend), func(t *testing.T) {
			t.Parallel()
			fresh, pod := freshStates(t, bin, backend, manyArguments), quietLab(t).Pod
			last := map[string]int{}
			for i := range rounds {
				pair := []string{manyArguments[i%len(manyArguments)], manyArguments[(i+1+i/len(manyArguments))%len(manyArguments)]}
				ended := make(chan error, len(pair))
				for _, text := range pair {
					go func() {
						out, err := pod.Command(t.Context(), bin, argumentsOn(backend, text, skipVerify)...).CombinedOutput()
						if err != nil {
							err = fmt.Errorf("%q: %w: %s", text, err, out)
						}
						ended <- err
					}()
				}
				for range pair {
					if err := <-ended; err != nil {
						t.Fatal(err)
					}
				}
				got := stateOf(t, pod, backend)
				n := slices.IndexFunc(pair, func(text string) bool { return cmp.Equal(fresh[text], got) })
				if n < 0 {
					t.Fatalf("round %d: neither %q nor %q: %s", i, pair[0], pair[1], cmp.Diff(fresh[pair[0]], got))
				}
				last[[]string{"first", "second"}[n]]++
			}
			t.Logf("%d rounds, of the runs that ended them the one started %v", rounds, last)
		})
	}
}

// TestTwoBackendsAtOnce starts two runs together that ask for different backends. Both must succeed,
// and the rules be in one of the backends, as a fresh run leaves them.
func TestTwoBackendsAtOnce(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy")
	t.Parallel()
	const rounds, arguments = 10, "-m TPROXY"
	bin := buildShuntInit(t)
	for _, both := range changes {
		t.Run(fmt.Sprintf("%s and %s", both[0], both[1]), func(t *testing.T) {
			t.Parallel()
			pod, fresh, last := quietLab(t).Pod, map[interception.Backend]state{}, map[interception.Backend]int{}
			for _, backend := range both {
				fresh[backend] = freshStates(t, bin, backend, []string{arguments})[arguments]
			}
			for i := range rounds {
				ended := make(chan error, len(both))
				for _, backend := range both {
					go func() {
						out, err := pod.Command(t.Context(), bin, argumentsOn(backend, arguments, skipVerify)...).CombinedOutput()
						if err != nil {
							err = fmt.Errorf("%s: %w: %s", backend, err, out)
						}
						ended <- err
					}()
				}
				for range both {
					if err := <-ended; err != nil {
						t.Fatal(err)
					}
				}
				n := slices.IndexFunc(both[:], func(b interception.Backend) bool { return cmp.Equal(fresh[b], stateOf(t, pod, b)) })
				if n < 0 {
					t.Fatalf("round %d: neither: %s", i, cmp.Diff(fresh[both[0]], stateOf(t, pod, both[0])))
				}
				checkOnly(t, pod, both[n])
				last[both[n]]++
			}
			t.Logf("%d rounds, ended by %v", rounds, last)
		})
	}
}

// whole is everything in a namespace that rules could be made of, as text.
type whole map[string]string

// wholeOf reads a namespace without creating anything: legacy tables, which listing creates, are
// listed only if there are any.
func wholeOf(t *testing.T, ns *netns.NS) whole {
	t.Helper()
	whole := whole{}
	for _, what := range []string{"-4 rule", "-6 rule", "-4 route show table all", "-6 route show table all", "-details addr"} {
		whole["ip "+what] = run(t, ns, "ip", strings.Fields(what)...)
	}
	for _, family := range ruleset.Families {
		whole["nftables "+family.String()] = save(t, ns, interception.BackendNFTables, family)
		whole["nft "+family.String()] = withoutChance(save(t, ns, interception.BackendNFT, family))
		file := map[ruleset.Family]string{ruleset.IPv4: "ip_tables_names", ruleset.IPv6: "ip6_tables_names"}[family]
		if names := run(t, ns, "cat", "/proc/thread-self/net/"+file); names != "" {
			whole["legacy "+family.String()] = withoutChance(save(t, ns, interception.BackendLegacy, family))
		}
	}
	return whole
}

// withoutEmptyLegacy omits empty legacy tables: they stay until the namespace ends.
func (w whole) withoutEmptyLegacy() whole {
	for _, family := range ruleset.Families {
		key := "legacy " + family.String()
		if w[key] = emptyTables.ReplaceAllString(w[key], ""); w[key] == "" {
			delete(w, key)
		}
	}
	return w
}

// othersRules are rules that a namespace may hold before Shunt's, and must keep. {iptables} is
// either family's command of the backend.
const othersRules = `
{iptables} -t nat -N CNI-HOSTPORT
{iptables} -t nat -A CNI-HOSTPORT -p tcp --dport 80 -j RETURN
{iptables} -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT
{iptables} -t nat -A OUTPUT -p udp --dport 5353 -j ACCEPT
{iptables} -A INPUT -m conntrack --ctstate INVALID -j DROP
{iptables} -A FORWARD -m comment --comment not-shunt:-at-all -j ACCEPT
{iptables} -P FORWARD DROP
ip {family} rule add fwmark 0x77 lookup 77
ip {family} route add local default dev lo table 77
ip {family} rule add pref 50 fwmark 0x539 lookup 78`

// commandsWith returns the backend whose commands others use where Shunt uses some backend.
func commandsWith(backend interception.Backend) interception.Backend {
	if backend == interception.BackendNFTables {
		return interception.BackendNFT
	}
	return backend
}

func putOthers(t *testing.T, pod *netns.NS, backend interception.Backend) {
	t.Helper()
	runRules(t, pod, strings.ReplaceAll(othersRules, "{iptables}", "{iptables}-"+string(commandsWith(backend))))
}

// TestRemoveGivesBack checks that a namespace is byte for byte what it was once everything of Shunt
// is removed, with and without rules of others, and after a kill.
func TestRemoveGivesBack(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy", "ip")
	t.Parallel()
	adoptOrphans(t)
	bin := buildShuntInit(t)
	for _, backend := range backends {
		for _, others := range []bool{false, true} {
			for _, kill := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s others=%t kill=%t", backend, others, kill), func(t *testing.T) {
					t.Parallel()
					r := removal{bin: bin, backend: backend, pod: quietLab(t, "net1").Pod}
					if others {
						putOthers(t, r.pod, backend)
					}
					r.run(t, kill)
				})
			}
		}
	}
}

// removal is a namespace whose rules are installed and removed again and again.
type removal struct {
	bin     string
	backend interception.Backend
	pod     *netns.NS
}

func (r removal) run(t *testing.T, kill bool) {
	before := wholeOf(t, r.pod)
	for i, text := range manyArguments {
		args := argumentsOn(r.backend, text, skipVerify)
		start := time.Now()
		run(t, r.pod, r.bin, args...)
		if changed := wholeOf(t, r.pod); cmp.Equal(before, changed) {
			t.Fatalf("%q changed nothing", text)
		}
		if kill {
			length := time.Since(start)
			run(t, r.pod, r.bin, "--remove", "--backend="+string(r.backend))
			moment := length * time.Duration(i+1) / time.Duration(len(manyArguments)+1)
			if _, err := killAfter(t.Context(), r.pod, moment, i%2 == 0, r.bin, args...); err != nil {
				t.Fatal(err)
			}
		}
		run(t, r.pod, r.bin, "--remove", "--backend="+string(r.backend))
		after := wholeOf(t, r.pod)
		if r.backend == interception.BackendLegacy {
			after = after.withoutEmptyLegacy()
		}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Fatalf("%q, and removed (-before +after):\n%s", text, diff)
		}
		if out := run(t, r.pod, r.bin, "--remove", "--backend="+string(r.backend)); !strings.Contains(out, "nothing to remove") {
			t.Errorf("the second removal says %q", out)
		}
	}
}

// TestKillInVerification kills runs while they send probes. The next run must delete their link,
// even if it only removes, or sends no probes.
func TestKillInVerification(t *testing.T) {
	netns.Require(t, "iptables-nft", "ip")
	t.Parallel()
	adoptOrphans(t)
	bin := buildShuntInit(t)
	for _, next := range [][]string{{"-m", "TPROXY"}, {"-m", "TPROXY", skipVerify}, {"--remove"}} {
		t.Run(strings.Join(next, " "), func(t *testing.T) {
			t.Parallel()
			pod, fresh := quietLab(t).Pod, quietLab(t).Pod
			run(t, fresh, bin, next...)
			run(t, pod, bin, "-m", "TPROXY", skipVerify)
			for begun := time.Now(); !killProbing(t, pod, bin, "-m", "TPROXY", "--verify"); {
				if time.Since(begun) > 10*time.Second {
					t.Fatal("no run was caught while it sent probes")
				}
			}
			run(t, pod, bin, next...)
			if links := run(t, pod, "ip", "-oneline", "link"); strings.Contains(links, probeLink) {
				t.Errorf("links that a killed run made:\n%s", links)
			}
			if diff := cmp.Diff(stateOf(t, fresh, interception.BackendNFT), stateOf(t, pod, interception.BackendNFT)); diff != "" {
				t.Errorf("after the next run (-fresh +got):\n%s", diff)
			}
		})
	}
}

// killProbing runs shunt-init and kills it as soon as its link exists. It returns false if the link
// was gone before.
func killProbing(t *testing.T, pod *netns.NS, bin string, args ...string) (ok bool) {
	t.Helper()
	return killOnce(t, pod, func() bool {
		_, err := pod.Netlink().LinkByName(probeLink)
		return err == nil
	}, bin, args...)
}

// killOnce runs shunt-init and kills it once a condition holds. It returns false if it no longer
// holds then.
func killOnce(t *testing.T, pod *netns.NS, condition func() bool, bin string, args ...string) (ok bool) {
	t.Helper()
	cmd := pod.Command(t.Context(), bin, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	for {
		now := condition()
		select {
		case <-ended:
		default:
			if !now {
				continue
			}
			_ = cmd.Process.Kill()
			<-ended
		}
		return condition()
	}
}

// probeLink is the link that shunt-init makes for its probes.
const probeLink = "shunt-probe"

// quietLab returns a network whose addresses have their routes: the kernel adds them some time
// after the addresses.
func quietLab(t *testing.T, interfaces ...string) *netns.Lab {
	t.Helper()
	lab := newLab(t, interfaces...)
	for _, ns := range []*netns.NS{lab.Pod, lab.Outside} {
		deadline := time.Now().Add(5 * time.Second)
		for !quiet(t, ns) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: addresses without a route", ns.Name())
			}
			time.Sleep(time.Millisecond)
		}
	}
	return lab
}

func quiet(t *testing.T, ns *netns.NS) bool {
	t.Helper()
	addrs, err := ns.Netlink().AddrList(nil, unix.AF_INET6)
	if err != nil {
		t.Fatal(err)
	}
	links, err := ns.Netlink().LinkList()
	if err != nil {
		t.Fatal(err)
	}
	local := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL}
	routes, err := ns.Netlink().RouteListFiltered(unix.AF_INET6, local, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	if err != nil {
		t.Fatal(err)
	}
	linkLocals := 0
	for _, a := range addrs {
		if a.IP.IsLinkLocalUnicast() {
			linkLocals++
		}
	}
	return linkLocals == len(links)-1 && len(routes) == len(addrs) // every link but lo has one
}
