package proxy

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/shunt-dev/shunt/test/container"
)

// runFolder holds what is made once for all tests of a run.
var runFolder string

func TestMain(m *testing.M) {
	container.Main() // this program again, if a test runs it as a container
	var err error
	if runFolder, err = os.MkdirTemp("", "shunt-proxy-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(runFolder)
	os.Exit(code)
}

// shuntInit is the init container's program, built once as it ships.
var shuntInit = sync.OnceValues(func() (string, error) { return container.BuildShuntInit(runFolder) })

func buildShuntInit(t *testing.T) string {
	t.Helper()
	bin, err := shuntInit()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}
