//go:build linux

package rules

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/ruleset"
	"github.com/shunt-dev/shunt/test/netns"
)

// TestKillThenAnother starts a run right after another was killed alone. What that one had started
// may still be writing, and must not overwrite the next run's rules.
func TestKillThenAnother(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy")
	t.Parallel()
	adoptOrphans(t)
	const rounds = 40
	bin := buildShuntInit(t)
	for _, backend := range iptablesBackends {
		t.Run(string(backend), func(t *testing.T) {
			t.Parallel()
			pod := newLab(t).Pod
			k := &killing{journey: journeys[1], bin: bin, backends: [2]interception.Backend{backend, backend}}
			start := time.Now()
			run(t, pod, bin, k.args(1)...)
			length := time.Since(start)
			run(t, pod, bin, k.args(0)...)
			wanted := stateOf(t, pod, backend)
			for i := range rounds {
				cmd := pod.Command(t.Context(), bin, k.args(1)...)
				cmd.SysProcAttr.Setpgid = true
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(length * time.Duration(i) / rounds)
				_ = cmd.Process.Kill()
				run(t, pod, bin, k.args(0)...)
				_ = cmd.Wait()
				if err := awaitEnd(cmd.Process.Pid); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(wanted, stateOf(t, pod, backend)); diff != "" {
					t.Fatalf("round %d: something of the killed run came after (-wanted +got):\n%s", i, diff)
				}
			}
		})
	}
}

// orphanPatience is how long a slow iptables-restore waits before it writes: longer than the next
// run takes.
const orphanPatience = 2 * time.Second

// TestOrphanWritesNothing kills a run alone whose iptables-restore has not written yet. It must not
// overwrite the next run's rules later.
func TestOrphanWritesNothing(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy")
	t.Parallel()
	adoptOrphans(t)
	bin := buildShuntInit(t)
	for _, backend := range iptablesBackends {
		t.Run(string(backend), func(t *testing.T) {
			t.Parallel()
			pod, slow := quietLab(t).Pod, newSlowRestore(t, backend)
			wanted := freshStates(t, bin, backend, []string{"-m REDIRECT"})["-m REDIRECT"]
			cmd := pod.Command(t.Context(), bin, argumentsOn(backend, "-m TPROXY", skipVerify)...)
			cmd.Env = append(cmd.Environ(), "PATH="+slow.dir)
			cmd.SysProcAttr.Setpgid = true
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			slow.await(t)
			time.Sleep(orphanPatience / 10) // and has received its input
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			run(t, pod, bin, argumentsOn(backend, "-m REDIRECT", skipVerify)...)
			if err := awaitEnd(cmd.Process.Pid); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(wanted, stateOf(t, pod, backend)); diff != "" {
				t.Errorf("the killed run's iptables-restore came after (-wanted +got):\n%s", diff)
			}
		})
	}
}

// slowRestore is a PATH with a slow iptables-restore.
type slowRestore struct{ dir, started string }

func newSlowRestore(t *testing.T, backend interception.Backend) slowRestore {
	t.Helper()
	s := slowRestore{dir: t.TempDir(), started: filepath.Join(t.TempDir(), "started")}
	for _, family := range ruleset.Families {
		tool := strings.Fields(iptables(family, backend, "nat"))[0]
		for _, name := range []string{tool, tool + "-save", tool + "-restore"} {
			path, err := exec.LookPath(name)
			if err != nil {
				t.Fatal(err)
			}
			script := "#!/bin/sh\n"
			if strings.HasSuffix(name, "-restore") {
				script += "echo >>'" + s.started + "'\n/bin/sleep " + orphanPatience.String() + "\n"
			}
			script += "exec '" + path + "' \"$@\"\n"
			if err := os.WriteFile(filepath.Join(s.dir, name), []byte(script), 0o700); err != nil { //nolint:gosec // it has to run
				t.Fatal(err)
			}
		}
	}
	return s
}

// await returns once an iptables-restore has started.
func (s slowRestore) await(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(s.started); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("no iptables-restore was started")
		}
	}
}
