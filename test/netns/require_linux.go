package netns

import (
	"errors"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// Tester is what Require needs of a testing.TB.
type Tester interface {
	Helper()
	Fatal(args ...any)
	Skip(args ...any)
}

// Require skips a test that cannot have network namespaces, or whose commands are
// not on PATH. With CI=true it fails the test instead.
func Require(t Tester, commands ...string) {
	t.Helper()
	reason := missing(commands)
	switch {
	case reason == "":
	case os.Getenv("CI") == "true":
		t.Fatal(reason)
	default:
		t.Skip(reason)
	}
}

// missing returns what is missing here; "" if all is there.
func missing(commands []string) string {
	ns, err := New("probe")
	switch {
	case errors.Is(err, unix.EPERM):
		return "this test makes network namespaces, which takes root with CAP_SYS_ADMIN: " + err.Error()
	case err != nil:
		return "this test makes network namespaces, which fails here: " + err.Error()
	}
	_ = ns.Close()
	var missing []string
	for _, name := range commands {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return "this test runs " + strings.Join(missing, " and ") + ", which is not on PATH; hack/deps.sh installs it"
}
