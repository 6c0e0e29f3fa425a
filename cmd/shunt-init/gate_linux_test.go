package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
	"github.com/shunt-dev/shunt/test/netns"
)

// impatientGate acts as shunt-init gate that waits for a moment only.
func impatientGate() int {
	task, err := parseTask(os.Args[2:])
	if err == nil {
		err = gate{task: task, stdout: os.Stdout, patience: time.Millisecond}.run(context.Background())
	}
	if err != nil {
		fmt.Println(err)
	}
	return exitCode(err)
}

// gateUser is neither root nor the proxy.
const gateUser = 65532

// TestGate runs the gate as a user without capabilities, with what the node's agent may have left.
func TestGate(t *testing.T) {
	netns.Require(t)
	program := programForEverybody(t)
	for mode, variant := range map[string]struct {
		args []string
		lost string // what is said of a probe that leaves
	}{
		"REDIRECT":                 {[]string{"-m", "REDIRECT", "--backend=nftables"}, "did not reach port 15001"},
		"TPROXY":                   {[]string{"-m", "TPROXY", "--backend=nftables"}, "did not reach port 15001"},
		"TPROXY without conntrack": {[]string{"-m", "TPROXY", "--no-conntrack", "--backend=nftables"}, "did not turn round"},
	} {
		args := variant.args
		spec, opts, err := interception.ParseArgs(args)
		if err != nil {
			t.Fatal(err)
		}
		digest := interception.NodeRules{Spec: spec, IPv6: opts.IPv6}.Digest()
		done := kernel.Receipt{State: kernel.ReceiptDone, Digest: digest}
		for name, c := range map[string]struct {
			receipt kernel.Receipt
			rules   []string // of shunt-init, which applies them; none without
			code    int
			says    string
		}{
			"no agent":        {code: exitVerify, says: "there is no shunt-node on this node"},
			"no agent, rules": {rules: args, code: exitVerify, says: "there is no shunt-node on this node"},
			"begun": {
				receipt: kernel.Receipt{State: kernel.ReceiptBegun, Digest: digest},
				rules:   args, code: exitVerify, says: "has not finished",
			},
			"failed": {
				receipt: kernel.Receipt{State: kernel.ReceiptFailed, Digest: digest, Detail: "no nf_tables"},
				code:    exitVerify, says: "could not set this pod's network up: no nf_tables",
			},
			"changed annotation": {
				receipt: kernel.Receipt{State: kernel.ReceiptDone, Digest: strings.Repeat("0", 64)},
				rules:   args, code: exitVerify, says: "changed the pod's annotation",
			},
			"done, no rules": {receipt: done, code: exitVerify, says: variant.lost},
			"done, other rules": {
				receipt: done, rules: append([]string{"-x", "0.0.0.0/0"}, args...), code: exitVerify, says: "IPv4: probe",
			},
			"done": {
				receipt: done, rules: args,
				code: exitDone, says: "IPv4 and IPv6: set up by the node's agent, verified; not intercepted",
			},
		} {
			t.Run(mode+"/"+name, func(t *testing.T) {
				lab, err := netns.NewLab()
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = lab.Close() })
				if c.rules != nil {
					apply := lab.Pod.Command(t.Context(), program, c.rules...)
					apply.Env = append(os.Environ(), "SHUNT_INIT_TEST=1")
					if said, err := apply.CombinedOutput(); err != nil {
						t.Fatalf("%v\n%s", err, said)
					}
				}
				if c.receipt != (kernel.Receipt{}) {
					if err := lab.Pod.Do(func() error { return kernel.LeaveReceipt(c.receipt) }); err != nil {
						t.Fatal(err)
					}
				}
				cmd := lab.Pod.Command(t.Context(), program, append([]string{interception.GateCommand}, args...)...)
				cmd.Env = append(os.Environ(), "SHUNT_INIT_TEST=gate")
				cmd.SysProcAttr.Credential = &syscall.Credential{Uid: gateUser, Gid: gateUser, NoSetGroups: true}
				said, err := cmd.CombinedOutput()
				if err != nil && !errors.As(err, new(*exec.ExitError)) {
					t.Fatal(err)
				}
				if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(string(said), c.says) {
					t.Errorf("exit code %d, want %d and %q\n%s", code, c.code, c.says, said)
				}
			})
		}
	}
}

// TestReceiptTakesPrivilege checks that a pod without capabilities cannot write what the gate trusts.
func TestReceiptTakesPrivilege(t *testing.T) {
	netns.Require(t)
	lab, err := netns.NewLab()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lab.Close() })
	cmd := lab.Pod.Command(t.Context(), programForEverybody(t))
	cmd.Env = append(os.Environ(), "SHUNT_INIT_TEST=forge")
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: gateUser, Gid: gateUser, NoSetGroups: true}
	said, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(said), "operation not permitted") {
		t.Errorf("%v\n%s", err, said)
	}
}

// forge acts as an application that wants to be let through.
func forge() int {
	if err := kernel.LeaveReceipt(kernel.Receipt{State: kernel.ReceiptDone}); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// programForEverybody returns a copy of the test binary that any user can run.
func programForEverybody(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "shunt-gate-") //nolint:usetesting // nobody else can enter t.TempDir's parent
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "shunt-init")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(path, program, 0o755)); err != nil { //nolint:gosec // for everybody
		t.Fatal(err)
	}
	return path
}
