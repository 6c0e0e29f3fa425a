//go:build linux

package rules

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// runFolder holds what is built once for all tests of a run.
var runFolder string

func TestMain(m *testing.M) {
	var err error
	if runFolder, err = os.MkdirTemp("", "shunt-rules-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(runFolder)
	os.Exit(code)
}

// shuntInit is the program that users run, built once.
var shuntInit = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(runFolder, "shunt-init")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "github.com/shunt-dev/shunt/cmd/shunt-init")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building shunt-init: %w\n%s", err, out)
	}
	return bin, nil
})

func buildShuntInit(t *testing.T) string {
	t.Helper()
	bin, err := shuntInit()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}
