//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/initimage/envoy"
	"github.com/shunt-dev/shunt/initimage/kernel"
)

var twoResolvers = []netip.Addr{netip.MustParseAddr("10.0.0.10"), netip.MustParseAddr("fd00::a")}

// contents returns the names and modes of everything in a folder.
func contents(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprint(info.Mode(), " ", e.Name()))
	}
	return strings.Join(all, "\n")
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

func TestShare(t *testing.T) {
	dir := t.TempDir()
	defer syscall.Umask(syscall.Umask(0o077)) // the proxy has to read what root wrote
	if err := share(dir, shared{resolvers: twoResolvers}); err != nil {
		t.Fatal(err)
	}
	const want = "-r--r--r-- resolvers.json\n-r-xr-xr-x shunt-init"
	if diff := cmp.Diff(want, contents(t, dir)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	program, resolvers := filepath.Join(dir, sharedProgram), filepath.Join(dir, envoy.ResolversFile)
	if mustRead(t, program) != mustRead(t, "/proc/self/exe") {
		t.Error("the program that was left is another one")
	}

	before := [2]uint64{inode(t, program), inode(t, resolvers)}
	if err := share(dir, shared{resolvers: twoResolvers}); err != nil {
		t.Fatal(err)
	}
	if again := [2]uint64{inode(t, program), inode(t, resolvers)}; again != before {
		t.Errorf("files that were right were written again: inodes %v, then %v", before, again)
	}

	if err := share(dir, shared{resolvers: twoResolvers[1:]}); err != nil {
		t.Fatal(err)
	}
	if text := mustRead(t, resolvers); strings.Contains(text, "10.0.0.10") || !strings.Contains(text, "fd00::a") {
		t.Errorf("with other resolvers: %s", text)
	}

	if err := share(dir, shared{}); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, dir); got != "-r-xr-xr-x shunt-init" {
		t.Errorf("without resolvers there is\n%s", got)
	}
}

// TestShareOverARunningProgram replaces the program while the proxy runs it: then it cannot be
// written to.
func TestShareOverARunningProgram(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, sharedProgram)
	self := mustRead(t, "/proc/self/exe")
	other := self[:len(self)-1] + "?" // of the same length; nothing is loaded from there
	if err := os.WriteFile(program, []byte(other), programMode); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = append(os.Environ(), "SHUNT_INIT_TEST=wait")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if file, err := os.OpenFile(program, os.O_WRONLY, 0); !errors.Is(err, syscall.ETXTBSY) && !errors.Is(err, fs.ErrPermission) {
		t.Errorf("the running program could be written to: %v, %v", file, err)
	}
	if err := share(dir, shared{}); err != nil {
		t.Error(err)
	}
	if mustRead(t, program) != self {
		t.Error("the program was not replaced")
	}
	if err := stdin.Close(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the program that ran: %v", err)
	}
}

// TestShareAfterAKilledRun checks that the half-written file of a run with this process number does
// no harm, and does not stay.
func TestShareAfterAKilledRun(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, fmt.Sprintf(".%s.%d", sharedProgram, os.Getpid()))
	if err := os.WriteFile(left, []byte("half"), 0o400); err != nil {
		t.Fatal(err)
	}
	if err := share(dir, shared{}); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, dir); got != "-r-xr-xr-x shunt-init" {
		t.Errorf("there is\n%s", got)
	}
}

func TestShareFails(t *testing.T) {
	none, file, taken := filepath.Join(t.TempDir(), "none"), filepath.Join(t.TempDir(), "file"), t.TempDir()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(taken, envoy.ResolversFile, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{none: "no such file", file: "not a directory", taken: "resolvers.json"} {
		err := share(dir, shared{resolvers: twoResolvers})
		if !errors.Is(err, kernel.ErrPreflight) || exitCode(err) != exitPreflight {
			t.Fatalf("%s: error %v, want a %v", dir, err, kernel.ErrPreflight)
		}
		for _, want := range []string{"--share " + dir, want, "accepted: "} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not say %q", err, want)
			}
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("more than one line: %v", err)
		}
	}
	if got := contents(t, taken); strings.Contains(got, ".resolvers") {
		t.Errorf("a file that could not be put in its place stays:\n%s", got)
	}
}

func TestDryRunSharesNothing(t *testing.T) {
	dir := t.TempDir()
	args := []string{"-n", "--share=" + dir, "--redirect-dns", "--dns-servers=10.0.0.10"}
	if err := run(context.Background(), args, &strings.Builder{}); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, dir); got != "" {
		t.Errorf("a dry run left\n%s", got)
	}
}
