package bench_test

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// maxSize is what shunt-init must stay under, in bytes: every node of a
// cluster pulls it.
const maxSize = 8_000_000

// build builds shunt-init as it ships, into a folder.
func build(tb testing.TB, dir string) string {
	tb.Helper()
	bin := filepath.Join(dir, "shunt-init")
	cmd := exec.CommandContext(tb.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", bin,
		"github.com/shunt-dev/shunt/cmd/shunt-init")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("building shunt-init: %v\n%s", err, out)
	}
	return bin
}

// TestBinary holds that shunt-init runs in an image that holds iptables and
// nothing else, whatever C library that was built with, and that it is small.
func TestBinary(t *testing.T) {
	if testing.Short() {
		t.Skip("with -trimpath, as it ships, all that it links is compiled once more")
	}
	bin := build(t, t.TempDir())
	file, err := elf.Open(bin)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("it has a %s header: it is linked dynamically", p.Type)
		}
	}
	for _, s := range file.Sections {
		if s.Type == elf.SHT_SYMTAB {
			t.Error("it has a symbol table: it is not stripped")
		}
	}
	info, err := os.Stat(bin)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() >= maxSize {
		t.Errorf("it has %d bytes; it must stay under %d", info.Size(), maxSize)
	}
	t.Logf("%d bytes", info.Size())
}
