//go:build linux

package rules

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// killSeedEnv repeats an earlier TestKill, which printed its seed.
const killSeedEnv = "SHUNT_KILL_SEED"

// journey is a change, there and back, during which shunt-init is killed. From a namespace that was
// never touched there are no arguments, and no way back.
type journey struct {
	name  string
	ends  [2][]string // arguments of shunt-init
	kills int
	only  interception.Backend // "" for all
}

// journeys have 100 kills on each backend, and those of what only one has. changes has 24 of the second one between two backends.
var journeys = []journey{
	{"fresh to tproxy", [2][]string{nil, {"-m", "TPROXY"}}, 16, ""},
	{"redirect and tproxy", [2][]string{{"-m", "REDIRECT"}, {"-m", "TPROXY"}}, 32, ""},
	{"tproxy and ambient", [2][]string{{"-m", "TPROXY"}, {"--system", "ambient"}}, 26, ""},
	{"tproxy and nothing", [2][]string{{"-m", "TPROXY"}, {"--remove"}}, 26, ""},
	{
		"redirect and tproxy without conntrack", [2][]string{{"-m", "REDIRECT"}, {"-m", "TPROXY", "--no-conntrack"}}, 24,
		interception.BackendNFTables,
	},
}

var changes = [][2]interception.Backend{
	{interception.BackendNFT, interception.BackendNFTables},
	{interception.BackendLegacy, interception.BackendNFTables},
	{interception.BackendNFT, interception.BackendLegacy},
}

// TestKill kills shunt-init with SIGKILL at random moments of real changes. Then the pod must be as
// before, as after or cut off, and the next run must end as without a kill.
func TestKill(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy")
	t.Parallel()
	adoptOrphans(t)
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(killSeedEnv); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s=%q: %v", killSeedEnv, text, err)
		}
	}
	t.Logf("%s=%d", killSeedEnv, seed)
	bin, seen, kills := buildShuntInit(t), &tally{count: map[string]int{}}, 0
	for i, j := range journeys {
		for n, backend := range backends {
			if j.only != "" && j.only != backend {
				continue
			}
			kills += j.kills
			rng := rand.New(rand.NewPCG(seed, uint64(i*len(backends)+n))) //nolint:gosec // moments, not secrets
			t.Run(j.name+" "+string(backend), func(t *testing.T) {
				t.Parallel()
				(&killing{journey: j, bin: bin, backends: [2]interception.Backend{backend, backend}, seen: seen, rng: rng}).run(t)
			})
		}
	}
	for n, both := range changes {
		j := journey{"redirect and tproxy", journeys[1].ends, 24, ""}
		kills += j.kills
		rng := rand.New(rand.NewPCG(seed, uint64(len(journeys)*len(backends)+n))) //nolint:gosec // moments, not secrets
		t.Run(fmt.Sprintf("%s, %s and %s", j.name, both[0], both[1]), func(t *testing.T) {
			t.Parallel()
			(&killing{journey: j, bin: bin, backends: both, seen: seen, rng: rng}).run(t)
		})
	}
	t.Cleanup(func() { seen.report(t, kills) })
}

// tally counts what the kills left behind.
type tally struct {
	mu    sync.Mutex
	count map[string]int
}

func (c *tally) add(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count[what]++
}

// report fails a test that saw too little to prove anything.
func (c *tally) report(t *testing.T, kills int) {
	t.Logf("%d kills; families left %v", c.count["kills"], c.count)
	if c.count["kills"] != kills {
		t.Errorf("%d kills, want %d", c.count["kills"], kills)
	}
	if !t.Failed() && c.count[wasCut] == 0 {
		t.Error("no kill came in the middle of a change")
	}
}

// killing holds the kills of one journey, on one backend or from one to another.
type killing struct {
	journey
	bin      string
	backends [2]interception.Backend // at each end
	rng      *rand.Rand
	seen     *tally

	ground  *ground // nil if each run needs an untouched namespace
	views   [2]map[string]view
	wanted  [2]state
	lengths [2]time.Duration // of the run to each end
}

func (k *killing) fresh() bool { return k.ends[0] == nil }

func (k *killing) run(t *testing.T) {
	k.measure(t)
	to, begun := 1, time.Now()
	for killed, n := 0, 0; killed < k.kills; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			if k.trial(t, to, n/2%2 == 0) {
				killed++
				k.seen.add("kills")
			} else {
				k.seen.add("ended first")
			}
		})
		if t.Failed() {
			return
		}
		if !k.fresh() {
			to = 1 - to
		}
	}
	t.Logf("ways of %s, %s a trial", k.lengths, (time.Since(begun) / time.Duration(k.kills)).Round(time.Millisecond))
}

// measure makes the journey without a kill. It records how long each way takes, what connections
// see at its ends, and the state of a fresh namespace.
func (k *killing) measure(t *testing.T) {
	ground := newGround(t)
	for i := range 4 {
		end := i % 2
		if k.fresh() && i > 1 {
			break
		}
		if k.ends[end] != nil {
			start := time.Now()
			run(t, ground.lab.Pod, k.bin, k.args(end)...)
			k.lengths[end] = time.Since(start)
		}
		k.views[end] = ground.look(t, patientLook)
	}
	for family, v := range k.views[0] {
		if slices.Equal(v, k.views[1][family]) {
			t.Fatalf("%s: connections see no difference: %v", family, v)
		}
	}
	for end, args := range k.ends {
		fresh := quietLab(t).Pod
		if args != nil {
			run(t, fresh, k.bin, k.args(end)...)
		}
		k.wanted[end] = stateOf(t, fresh, k.backends[end])
	}
	if !k.fresh() {
		k.ground = ground
		run(t, ground.lab.Pod, k.bin, k.args(0)...)
	}
}

// args returns those of the run to one end. It skips the verification, which changes nothing that
// stays and which TestKillInVerification covers.
func (k *killing) args(end int) []string {
	args := append(slices.Clone(k.ends[end]), "--backend="+string(k.backends[end]))
	if slices.Contains(args, "--remove") {
		return args
	}
	return append(args, "--skip-verify")
}

// trial kills one run to an end. It returns false if the run ended before.
func (k *killing) trial(t *testing.T, to int, alone bool) (ok bool) {
	ground := k.ground
	if ground == nil {
		ground = newGround(t)
	}
	moment, start := time.Duration(k.rng.Int64N(int64(k.lengths[to]))), time.Now()
	killed, err := killAfter(t.Context(), ground.lab.Pod, moment, alone, k.bin, k.args(to)...)
	if err != nil {
		t.Fatal(err)
	}
	if killed {
		k.judge(t, ground, to, moment)
	} else {
		k.lengths[to] = (3*k.lengths[to] + time.Since(start)) / 4
	}
	run(t, ground.lab.Pod, k.bin, k.args(to)...)
	if diff := cmp.Diff(k.wanted[to], stateOf(t, ground.lab.Pod, k.backends[to])); diff != "" {
		t.Errorf("killed after %s, and run again (-fresh +got):\n%s", moment, diff)
	}
	if k.backends[0] != k.backends[1] {
		checkOnly(t, ground.lab.Pod, k.backends[to])
	}
	return killed
}

// killAfter runs a program and kills it after some time: alone, or with the processes that it
// started, as at the end of a container. It returns when none of them is left, and false if the
// program ended before.
func killAfter(ctx context.Context, ns *netns.NS, moment time.Duration, alone bool, name string, args ...string) (killed bool, err error) {
	cmd := ns.Command(ctx, name, args...)
	cmd.SysProcAttr.Setpgid = true
	if err := cmd.Start(); err != nil {
		return false, err
	}
	time.Sleep(moment)
	target := -cmd.Process.Pid
	if alone {
		target = cmd.Process.Pid
	}
	if err := unix.Kill(target, unix.SIGKILL); err != nil {
		return false, fmt.Errorf("killing %s: %w", name, err)
	}
	err = cmd.Wait()
	if err := awaitEnd(cmd.Process.Pid); err != nil {
		return false, err
	}
	if err == nil {
		return false, nil // it had ended, but had not been waited for
	}
	if !strings.Contains(err.Error(), "signal: killed") {
		return false, fmt.Errorf("%s %q: %w", name, args, err)
	}
	return true, nil
}

// awaitEnd returns when no process of a group is left. This process has to wait for those whose
// parent was killed.
func awaitEnd(group int) error {
	for {
		_, err := unix.Wait4(-group, nil, 0, nil)
		if errors.Is(err, unix.ECHILD) {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("waiting for the processes of group %d: %w", group, err)
		}
	}
}

// adoptOrphans makes this process the parent of processes whose parent was killed.
func adoptOrphans(t *testing.T) {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatalf("becoming the parent of orphans: %v", err)
	}
}

// The postures of a family.
const (
	wasBefore = "as before"
	wasAfter  = "as after"
	wasCut    = "cut off"
)

// judge compares what connections see after a kill with what they see before the change and after
// it. Nothing changes any more, so it looks again, with more patience, at what makes no sense.
func (k *killing) judge(t *testing.T, g *ground, to int, moment time.Duration) {
	t.Helper()
	postures, err := k.postures(g.look(t, firstLook), to)
	if err != nil {
		postures, err = k.postures(g.look(t, patientLook), to)
	}
	if err != nil {
		t.Fatalf("killed after %s: %v", moment, err)
	}
	for family, p := range postures {
		k.seen.add(p)
		for other, q := range postures {
			if p == wasAfter && q == wasBefore {
				t.Errorf("killed after %s: %s is as after while %s is still as before", moment, family, other)
			}
		}
	}
}

func (k *killing) postures(views map[string]view, to int) (map[string]string, error) {
	postures := map[string]string{}
	for family, v := range views {
		before, after := k.views[1-to][family], k.views[to][family]
		if k.backends[0] == interception.BackendNFTables && k.backends[1] == k.backends[0] {
			v = v.routedApart(before, after)
		}
		switch {
		case slices.Equal(v, before):
			postures[family] = wasBefore
		case slices.Equal(v, after):
			postures[family] = wasAfter
		case v.cutOff():
			postures[family] = wasCut
		default:
			return nil, fmt.Errorf("%s is half open:\n%v\nbefore\n%v\nafter\n%v", family, v, before, after)
		}
	}
	return postures, nil
}
