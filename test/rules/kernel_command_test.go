//go:build linux

package rules

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/test/netns"
)

// exitPreflight is shunt-init's exit code if nothing was touched.
const exitPreflight = 3

// TestFromOutside runs every action from another namespace, as a node agent does.
func TestFromOutside(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy", "ip")
	t.Parallel()
	bin := buildShuntInit(t)
	for _, backend := range backends {
		t.Run(string(backend), func(t *testing.T) {
			t.Parallel()
			lab := quietLab(t)
			in, out := wholeOf(t, lab.Pod), wholeOf(t, lab.Outside)
			fresh := freshStates(t, bin, backend, manyArguments[:3])
			for _, text := range manyArguments[:3] {
				args := argumentsOn(backend, text, "--netns="+lab.Pod.Path())
				if said := run(t, lab.Outside, bin, args...); !strings.Contains(said, "applied, verified; not intercepted: ") {
					t.Errorf("%q says %q", args, said)
				}
				if diff := cmp.Diff(fresh[text], stateOf(t, lab.Pod, backend)); diff != "" {
					t.Errorf("%q (-from inside +from outside):\n%s", text, diff)
				}
				run(t, lab.Outside, bin, append(args, "--verify")...)
			}
			run(t, lab.Outside, bin, "--remove", "--backend="+string(backend), "--netns="+lab.Pod.Path())
			if diff := cmp.Diff(in, wholeOf(t, lab.Pod).withoutEmptyLegacy()); diff != "" {
				t.Errorf("removed from outside (-before +after):\n%s", diff)
			}
			if diff := cmp.Diff(out, wholeOf(t, lab.Outside)); diff != "" {
				t.Errorf("the namespace that it ran in (-before +after):\n%s", diff)
			}
		})
	}
}

// mostProcesses bounds the processes of one run, itself included.
const mostProcesses = 6

// TestFewProcesses counts the processes of a first run on a pod of both families, and of the
// second.
func TestFewProcesses(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy")
	t.Parallel()
	bin := buildShuntInit(t)
	for _, backend := range []string{"auto", "nft", "legacy", "nftables"} {
		least, most := 2, mostProcesses
		if backend == "nftables" {
			least, most = 1, 1
		}
		for _, text := range []string{"-m REDIRECT", "-m TPROXY", "-m TPROXY --redirect-dns --capture-all-dns"} {
			t.Run(backend+" "+text, func(t *testing.T) {
				t.Parallel()
				pod, counted := newLab(t).Pod, newCounter(t)
				args := append(strings.Fields(text), "--backend="+backend)
				first := counted.run(t, pod, bin, append(args, skipVerify)...)
				again := counted.run(t, pod, bin, append(args, skipVerify)...)
				verified := counted.run(t, pod, bin, args...)
				t.Logf("processes: first run %d, again %d, again and verified %d", first, again, verified)
				if first > most || first < least {
					t.Errorf("the first run was %d processes, want %d to %d", first, least, most)
				}
				if again > first {
					t.Errorf("the second run was %d processes, the first %d", again, first)
				}
				other := newLab(t).Pod
				if n := counted.run(t, other, bin, args...); n > mostProcesses {
					t.Errorf("a first run that verifies was %d processes, want at most %d", n, mostProcesses)
				}
			})
		}
	}
}

// counter is a PATH whose commands record that they were started.
type counter struct{ dir, log string }

func newCounter(t *testing.T) counter {
	t.Helper()
	result := counter{dir: t.TempDir(), log: filepath.Join(t.TempDir(), "started")}
	script := "#!/bin/sh\necho \"$0\" >>'" + result.log + "'\nexec \"REAL\" \"$@\"\n"
	seen := 0
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // PATH may name folders that do not exist
		}
		for _, e := range entries {
			shim := filepath.Join(result.dir, e.Name())
			if _, err := os.Lstat(shim); err == nil {
				continue // an earlier folder of PATH has it
			}
			text := strings.Replace(script, "REAL", filepath.Join(dir, e.Name()), 1)
			if err := os.WriteFile(shim, []byte(text), 0o700); err != nil { //nolint:gosec // it has to run
				t.Fatal(err)
			}
			seen++
		}
	}
	if seen == 0 {
		t.Fatal("PATH is empty")
	}
	return result
}

// run returns the number of processes of a run, itself included.
func (c counter) run(t *testing.T, ns *netns.NS, name string, args ...string) int {
	t.Helper()
	if err := os.WriteFile(c.log, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := ns.Command(t.Context(), name, args...)
	cmd.Env = append(cmd.Environ(), "PATH="+c.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", args, err, out)
	}
	text, err := os.ReadFile(c.log)
	if err != nil {
		t.Fatal(err)
	}
	return 1 + strings.Count(string(text), "\n")
}

// TestLookingMakesNoTable checks that nothing that shunt-init does on nft creates a legacy table.
func TestLookingMakesNoTable(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy")
	t.Parallel()
	bin, pod := buildShuntInit(t), newLab(t).Pod
	for _, text := range []string{
		"--verify", "--remove", "-m REDIRECT", "-m REDIRECT", "--verify", "-m TPROXY", "--backend=nft", "--remove", "-m TPROXY",
	} {
		_, _ = pod.Command(t.Context(), bin, strings.Fields(text)...).CombinedOutput() // the first one fails
		checkOtherBackend(t, pod, interception.BackendNFT)
	}
	if saved := save(t, pod, interception.BackendNFT, 4); !strings.Contains(saved, "SHUNT_TPROXY") {
		t.Errorf("the runs did nothing:\n%s", saved)
	}
}

// checkPreflightError runs shunt-init, which has to exit with 3, name what is wrong and touch
// nothing.
func checkPreflightError(t *testing.T, pod *netns.NS, cmd *netns.Cmd, words ...string) {
	t.Helper()
	before := wholeOf(t, pod)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitPreflight {
		t.Fatalf("%q: %v, want exit code %d:\n%s", cmd.Args[1:], err, exitPreflight, out)
	}
	for _, word := range words {
		if !strings.Contains(string(out), word) {
			t.Errorf("%q: %q is not in:\n%s", cmd.Args[1:], word, out)
		}
	}
	if diff := cmp.Diff(before, wholeOf(t, pod)); diff != "" {
		t.Errorf("%q touched the namespace (-before +after):\n%s", cmd.Args[1:], diff)
	}
}

// TestNeverBothBackends checks that Shunt's rules are found in the backend that they are in, and
// that a run which asks for another takes them out there. What it leaves must be what a fresh run
// of that backend does.
func TestNeverBothBackends(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy", "ip", "nft")
	t.Parallel()
	bin := buildShuntInit(t)
	for _, backend := range backends {
		for _, other := range backends {
			if backend == other {
				continue
			}
			t.Run(fmt.Sprintf("ours from %s to %s", backend, other), func(t *testing.T) {
				t.Parallel()
				pod := quietLab(t).Pod
				run(t, pod, bin, argumentsOn(backend, "-m REDIRECT")...)
				out := run(t, pod, bin, "-m", "REDIRECT")
				if !strings.Contains(out, nameOf(backend)) || !strings.Contains(out, "nothing to change") {
					t.Errorf("by itself it chose: %s", out)
				}
				said, err := pod.Command(t.Context(), bin, argumentsOn(other, "-m REDIRECT --verify")...).CombinedOutput()
				stale := "rules of Shunt are in " + nameOf(backend)
				if code := exitCodeOf(err); code != exitVerify || !strings.Contains(string(said), stale) {
					t.Errorf("--verify of %s: exit code %d:\n%s", other, code, said)
				}
				fresh := freshStates(t, bin, other, manyArguments[:2])
				for _, action := range manyArguments[:2] { // the first changes the backend only
					out := run(t, pod, bin, argumentsOn(other, action)...)
					if !strings.Contains(out, nameOf(other)) || !strings.Contains(out, "applied, verified") {
						t.Errorf("%s over %s: %s", action, other, out)
					}
					if diff := cmp.Diff(fresh[action], stateOf(t, pod, other)); diff != "" {
						t.Errorf("%s, after it was %s (-fresh +got):\n%s", action, backend, diff)
					}
					checkOnly(t, pod, other)
				}
				run(t, pod, bin, argumentsOn(backend, "--remove")...)
				if left := wholeOf(t, pod).withoutEmptyLegacy(); strings.Contains(left.String(), "SHUNT") {
					t.Errorf("left after --remove:\n%s", left)
				}
			})
		}
	}
	for _, backend := range iptablesBackends {
		t.Run("others in "+string(backend), func(t *testing.T) {
			t.Parallel()
			pod := quietLab(t).Pod
			putOthers(t, pod, backend)
			if out := run(t, pod, bin, "-m", "TPROXY"); !strings.Contains(out, "iptables-"+string(backend)) {
				t.Errorf("by itself it chose: %s", out)
			}
		})
	}
}

// nameOf returns how shunt-init calls a backend.
func nameOf(backend interception.Backend) string {
	if backend == interception.BackendNFTables {
		return "nftables"
	}
	return "iptables-" + string(backend)
}

// checkOnly checks that no other backend holds rules of Shunt.
func checkOnly(t *testing.T, pod *netns.NS, backend interception.Backend) {
	t.Helper()
	for key, text := range wholeOf(t, pod) {
		name, _, _ := strings.Cut(key, " ")
		if name != "ip" && name != string(backend) && strings.Contains(text, "SHUNT") {
			t.Errorf("with %s there is %s:\n%s", backend, key, text)
		}
	}
}

func exitCodeOf(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

func (w whole) String() string {
	var b strings.Builder
	for key, text := range w {
		b.WriteString("# " + key + "\n" + text)
	}
	return b.String()
}

// TestRefusedByTheKernel checks what a namespace, a container or an image can lack.
func TestRefusedByTheKernel(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy", "ip")
	t.Parallel()
	bin := buildShuntInit(t)
	t.Run("no commands", func(t *testing.T) {
		pod := quietLab(t).Pod
		for _, backend := range []string{"nft", "legacy"} {
			cmd := pod.Command(t.Context(), bin, "--backend="+backend)
			cmd.Env = append(cmd.Environ(), "PATH="+t.TempDir())
			checkPreflightError(t, pod, cmd, "iptables-")
		}
		withLegacy := quietLab(t).Pod
		putOthers(t, withLegacy, interception.BackendLegacy)
		cmd := withLegacy.Command(t.Context(), bin)
		cmd.Env = append(cmd.Environ(), "PATH="+t.TempDir())
		checkPreflightError(t, withLegacy, cmd, "legacy tables", "iptables-legacy")

		putOthers(t, pod, interception.BackendNFT)
		for _, args := range [][]string{{"-m", "TPROXY"}, {"-m", "TPROXY", "--verify"}, {"--remove"}} {
			cmd := pod.Command(t.Context(), bin, args...)
			cmd.Env = append(cmd.Environ(), "PATH="+t.TempDir())
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "over nftables") {
				t.Errorf("%q without iptables: %v\n%s", args, err, out)
			}
		}
	})
	t.Run("no IPv6", func(t *testing.T) {
		pod := quietLab(t).Pod
		if err := pod.Sysctl("net/ipv6/conf/all/disable_ipv6", "1"); err != nil {
			t.Fatal(err)
		}
		checkPreflightError(t, pod, pod.Command(t.Context(), bin, "--ipv6=on"), "--ipv6=on")
	})
	t.Run("no IPv6 on lo", func(t *testing.T) {
		pod := quietLab(t).Pod
		run(t, pod, bin)
		if err := pod.Sysctl("net/ipv6/conf/lo/disable_ipv6", "1"); err != nil {
			t.Fatal(err)
		}
		run(t, pod, bin, "--remove")
		for _, mode := range []string{"REDIRECT", "TPROXY"} {
			checkPreflightError(t, pod, pod.Command(t.Context(), bin, "-m", mode), "net.ipv6.conf.lo.disable_ipv6")
			run(t, pod, bin, "-m", mode, "--ipv6=off")
			run(t, pod, bin, "--remove", "--ipv6=off")
		}
	})
	t.Run("no capability", func(t *testing.T) {
		pod := quietLab(t).Pod
		before := wholeOf(t, pod)
		checkPreflightErrorWithout(t, pod, unix.CAP_NET_ADMIN, "NET_ADMIN", bin)
		if diff := cmp.Diff(before, wholeOf(t, pod)); diff != "" {
			t.Errorf("the namespace was touched (-before +after):\n%s", diff)
		}
	})
	t.Run("no namespace", func(t *testing.T) {
		pod := quietLab(t).Pod
		checkPreflightError(t, pod, pod.Command(t.Context(), bin, "--netns="+filepath.Join(t.TempDir(), "none")), "none")
		checkPreflightError(t, pod, pod.Command(t.Context(), bin, "--netns="+bin), "shunt-init")
	})
	t.Run("no folder to share", func(t *testing.T) {
		pod := quietLab(t).Pod
		checkPreflightError(t, pod, pod.Command(t.Context(), bin, "--share="+filepath.Join(t.TempDir(), "none")), "--share")
		checkPreflightError(t, pod, pod.Command(t.Context(), bin, "--share="+bin), "not a directory")
	})
}

// TestWithoutNetRaw runs without NET_RAW, which iptables-legacy needs. Empty tables that somebody
// has listed do not matter then.
func TestWithoutNetRaw(t *testing.T) {
	netns.Require(t, "iptables-nft", "iptables-legacy")
	t.Parallel()
	bin := buildShuntInit(t)
	const missing = "the capability NET_RAW is missing"
	t.Run("empty tables", func(t *testing.T) {
		t.Parallel()
		pod := quietLab(t).Pod
		for _, tool := range []string{"iptables-legacy", "ip6tables-legacy"} {
			for _, table := range []string{"raw", "mangle", "nat", "filter"} {
				run(t, pod, tool, "-t", table, "-S")
			}
		}
		for _, text := range []string{"-m REDIRECT", "-m TPROXY", "-m TPROXY --backend=nft", "-m TPROXY --verify", "--remove"} {
			if out, err := without(t, pod, unix.CAP_NET_RAW, bin, strings.Fields(text)...); err != nil {
				t.Errorf("%s: %v\n%s", text, err, out)
			}
		}
	})
	for name, command := range map[string]string{
		"a rule":   "iptables-legacy -t nat -A OUTPUT -p tcp --dport 1 -j RETURN",
		"a chain":  "iptables-legacy -N OTHER",
		"a policy": "ip6tables-legacy -P FORWARD DROP",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := quietLab(t).Pod
			words := strings.Fields(command)
			run(t, pod, words[0], words[1:]...)
			before := wholeOf(t, pod)
			for _, backend := range []string{"auto", "nft", "legacy"} {
				checkPreflightErrorWithout(t, pod, unix.CAP_NET_RAW, missing, bin, "--backend="+backend)
			}
			if diff := cmp.Diff(before, wholeOf(t, pod)); diff != "" {
				t.Errorf("the namespace was touched (-before +after):\n%s", diff)
			}
			run(t, pod, bin)
		})
	}
	t.Run("the legacy backend", func(t *testing.T) {
		t.Parallel()
		checkPreflightErrorWithout(t, quietLab(t).Pod, unix.CAP_NET_RAW, missing, bin, "--backend=legacy")
	})
}

// checkPreflightErrorWithout checks that a run without a capability touches nothing and says why.
func checkPreflightErrorWithout(t *testing.T, ns *netns.NS, capability uintptr, want, name string, args ...string) {
	t.Helper()
	out, err := without(t, ns, capability, name, args...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitPreflight || !strings.Contains(out, want) {
		t.Errorf("%v, want exit code %d and %q:\n%s", err, exitPreflight, want, out)
	}
}

// without runs a program as root without a capability, as in a container.
func without(t *testing.T, ns *netns.NS, capability uintptr, name string, args ...string) (out string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var text strings.Builder
	cmd.Stdout, cmd.Stderr = &text, &text
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: nobody else may use this thread
		started <- ns.Do(func() error {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0); err != nil {
				return err
			}
			return cmd.Start()
		})
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	return text.String(), err
}
